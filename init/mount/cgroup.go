package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// enable writes one controller at a time: a kernel that refuses one (the
// realtime part of cpu, say) must not lose us the others.
func enable(dir, controllers string) error {
	var errs []error
	for c := range strings.FieldsSeq(controllers) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			errs = append(errs, fmt.Errorf("enable controller %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}
