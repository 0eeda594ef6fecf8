//go:build !amd64

package backdoor

import (
	"fmt"
	"runtime"
)

// Do says that guestinfo is out of reach on this architecture.
func Do(func(Port) error) error {
	return fmt.Errorf("%w: it is not read on %s; attach a cidata volume", ErrAbsent, runtime.GOARCH)
}
