package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"keelson/testvm/bench"
)

func parseBench(args []string) (bench.Config, error) {
	var c bench.Config
	f := flag.NewFlagSet("testvm bench", flag.ContinueOnError)
	f.StringVar(&c.Image, "image", "build/keelson-amd64.raw", "the raw image, with amd64/ of the same build beside it")
	f.IntVar(&c.Runs, "runs", 5, "how often each number is measured; the median counts")
	f.DurationVar(&c.Settle, "settle", 2*time.Minute, "from Node Ready to the look at the memory; 0 leaves the memory out")
	f.BoolVar(&c.Rebuild, "rebuild", true, "measure the rebuild after an edit in init/")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.Runs < 1 {
		return c, fmt.Errorf("runs %d: want at least one", c.Runs)
	}
	build := filepath.Dir(c.Image)
	c.Built, c.Dir = filepath.Join(build, "amd64"), filepath.Join(build, "vm")
	c.Log = os.Stdout
	return c, nil
}

// benchCommand measures, prints the table and keeps it in build/bench.json.
func benchCommand(ctx context.Context, args []string) error {
	c, err := parseBench(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	var reason string
	if c.Accel, reason, err = chooseAccel(ctx, c.Built); err != nil {
		return err
	}
	fmt.Printf("accelerator %s (%s)\n", c.Accel, reason)
	r, err := bench.Run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Println()
	if err := r.Print(os.Stdout); err != nil {
		return err
	}
	return r.Keep(filepath.Join(filepath.Dir(c.Image), "bench.json"))
}
