package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// serve answers every request with the pod's name, which is its host name.
func serve(ctx context.Context, args []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("serving as", name)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("asked for", r.URL.Path)
			fmt.Fprintln(w, name)
		}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// patience of a client: a service's rules and a DNS answer may be a moment
// behind the pod that has just become ready, and each try ends by itself.
const (
	tries     = 20
	oneTry    = 3 * time.Second
	breathing = 500 * time.Millisecond
)

func get(ctx context.Context, args []string) error {
	for _, url := range args {
		if err := persist(ctx, func(ctx context.Context) error { return getOnce(ctx, url) }); err != nil {
			return err
		}
	}
	return nil
}

func getOnce(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // another try is another connection: what is connected goes on where new ones are refused
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	_, err = os.Stdout.Write(body)
	return err
}

// deny waits until none of the URLs answers any more. The rules that have it so may be a moment behind too.
func deny(ctx context.Context, args []string) error {
	for _, url := range args {
		if err := persist(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, oneTry/2) // of packets that are dropped nobody hears
			defer cancel()
			if getOnce(ctx, url) == nil {
				return fmt.Errorf("%s still answers", url)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	fmt.Println("denied")
	return nil
}

func lookup(ctx context.Context, args []string) error {
	return persist(ctx, func(ctx context.Context) error {
		addresses, err := net.DefaultResolver.LookupHost(ctx, args[0])
		if err != nil {
			return err
		}
		fmt.Println(strings.Join(addresses, " "))
		return nil
	})
}

// persist repeats do until it works, its tries are used up or the program ends.
func persist(ctx context.Context, do func(context.Context) error) error {
	var last error
	for range tries {
		one, cancel := context.WithTimeout(ctx, oneTry)
		last = do(one)
		cancel()
		if last == nil {
			return nil
		}
		fmt.Fprintln(os.Stderr, "workload:", last)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(breathing):
		}
	}
	return fmt.Errorf("%d tries: %w", tries, last)
}
