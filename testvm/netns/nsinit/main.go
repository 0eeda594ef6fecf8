// Command nsinit is PID 1 of a namespace machine. Package netns builds and starts it; package inside does the work.
package main

import (
	"fmt"
	"os"

	"keelson/testvm/netns/inside"
)

func main() {
	pipe := os.NewFile(inside.Pipe, "settings")
	var err error
	if len(os.Args) > 1 && os.Args[1] == "run" {
		err = inside.Run(pipe, os.Stdout)
	} else {
		err = inside.Enter(pipe, []string{os.Args[0], "run"})
	}
	if err != nil {
		fmt.Println("keelson: halted:", err)
		os.Exit(1)
	}
}
