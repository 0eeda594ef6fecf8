package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keelson/testvm/bench"
)

func parseBench(args []string) (bench.Config, error) {
	var c bench.Config
	f := flag.NewFlagSet("testvm bench", flag.ContinueOnError)
	f.StringVar(&c.Image, "image", "build/keelson-amd64.raw", "the raw image, with amd64/ of the same build beside it")
	f.IntVar(&c.Runs, "runs", 5, "how often each number is measured; the median counts")
	f.DurationVar(&c.Settle, "settle", 2*time.Minute, "from Node Ready to the look at the memory; 0 leaves the memory out")
	part := f.String("part", "", "measure this alone: node, loadbalancer, join or cluster")
	f.BoolVar(&c.Rebuild, "rebuild", true, "measure the rebuild after an edit in init/")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.Runs < 1 {
		return c, fmt.Errorf("runs %d: want at least one", c.Runs)
	}
	if c.Part = bench.Part(*part); c.Part != "" && !slices.Contains(bench.Parts(), c.Part) {
		return c, fmt.Errorf("part %q: want one of %v", *part, bench.Parts())
	}
	build := filepath.Dir(c.Image)
	c.Built, c.Dir = filepath.Join(build, "amd64"), filepath.Join(build, "vm")
	c.Log = os.Stdout
	return c, nil
}

// benchCommand measures, prints the table and keeps it in build/bench.json, or build/bench-<part>.json.
func benchCommand(ctx context.Context, args []string) error {
	c, err := parseBench(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.Part.Machines() {
		var reason string
		if c.Accel, reason, err = chooseAccel(ctx, "amd64", c.Built); err != nil {
			return err
		}
		fmt.Printf("accelerator %s (%s)\n", c.Accel, reason)
	}
	r, err := bench.Run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Println()
	if err := r.Print(os.Stdout); err != nil {
		return err
	}
	return r.Keep(resultFile(c))
}

// resultFile is where the result is kept. That of a part does not take the place of a whole one.
func resultFile(c bench.Config) string {
	name := "bench.json"
	if c.Part != "" {
		name = "bench-" + string(c.Part) + ".json"
	}
	return filepath.Join(filepath.Dir(c.Image), name)
}
