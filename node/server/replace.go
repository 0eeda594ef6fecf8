package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"keelson/node/member"
	"keelson/node/readiness"
	"keelson/node/staticpod"
	"keelson/node/systempods"
	"keelson/node/turn"
)

// Bounds of replacing the control plane's pods while the cluster runs.
const (
	turnWithin    = 30 * time.Minute // for other servers to have had theirs
	spareWithin   = 10 * time.Minute // for the other members of etcd to be up
	replaceWithin = 10 * time.Minute // for one pod to be back
	spareEvery    = 2 * time.Second
)

// replacement is a static pod that may have to start anew, and what writes it.
type replacement struct {
	component string
	write     func(context.Context) error
}

// replacements are all of them, in the order in which they are replaced.
func (s *Server) replacements() []replacement {
	pod := func(component string) func(context.Context) error {
		return func(context.Context) error { return s.writePod(component) }
	}
	return []replacement{
		{staticpod.Etcd, s.writeEtcd},
		{staticpod.APIServer, s.writeAPIServer},
		{staticpod.ControllerManager, pod(staticpod.ControllerManager)},
		{staticpod.Scheduler, pod(staticpod.Scheduler)},
		{staticpod.CloudController, pod(staticpod.CloudController)},
		{staticpod.KubeProxy, pod(staticpod.KubeProxy)},
	}
}

// replacePods has the pods start anew whose files have changed: one at a time, each awaited, and no two servers of the
// cluster at once. A pod that does not come back keeps the ones after it from being touched.
func (s *Server) replacePods(ctx context.Context) error {
	var due []replacement
	for _, r := range s.replacements() {
		stale, err := s.isStale(r.component)
		if err != nil {
			return err
		}
		if stale {
			due = append(due, r)
		}
	}
	if len(due) == 0 {
		return nil
	}
	if !s.isReady() { // the start goes on by itself, and there is nobody yet to ask for a pod
		for _, r := range due {
			if err := r.write(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	defer s.takeTurn(ctx)()
	for _, r := range due {
		if err := s.replacePod(ctx, r); err != nil {
			return fmt.Errorf("replace static pod %s: %w", r.component, err)
		}
	}
	return nil
}

// isStale tells whether the kubelet has a manifest of the component that is not the one it should have.
func (s *Server) isStale(component string) (bool, error) {
	p, err := s.podParams()
	if err != nil {
		return false, err
	}
	has, err := os.ReadFile(p.ManifestPath(component))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read static pod: %w", err)
	}
	wants, err := p.Render(component)
	return !bytes.Equal(has, wants), err
}

// takeTurn waits for this server's turn, and returns the function that gives it back. Without it the server goes on
// when patience ends: certificates do not wait for a lock that nobody can give.
func (s *Server) takeTurn(ctx context.Context) func() {
	ctx, cancel := context.WithTimeout(ctx, turnWithin)
	defer cancel()
	back, err := turn.Take(ctx, turn.Config{Client: s.etcd, Name: "pods", Log: s.log})
	if err != nil {
		s.log.Warn("going on without the turn", "error", err)
		return func() {}
	}
	return back
}

func (s *Server) replacePod(ctx context.Context, r replacement) error {
	if r.component == staticpod.Etcd {
		if err := s.awaitSpare(ctx); err != nil {
			return err
		}
	}
	held, back := s.lendAPI(r.component)
	defer back()
	if err := r.write(ctx); err != nil {
		return err
	}
	uid, err := s.manifestUID(r.component)
	if err != nil {
		return err
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, replaceWithin)
	defer cancel()
	if err := held(ctx); err != nil {
		return err
	}
	if err := systempods.WaitReplaced(ctx, s.client, r.component+"-"+s.settings.NodeName, uid); err != nil {
		return err
	}
	if r.component == staticpod.APIServer {
		if err := s.awaitServing(ctx); err != nil {
			return err
		}
	}
	s.log.Info("static pod replaced", "component", r.component, "dur", time.Since(began).Round(time.Millisecond))
	return nil
}

// lendAPI has the kubelet use another server's kube-apiserver while this server's own is away, or without etcd: before
// it starts a static pod again it deletes the one in the API that stands for it, and waits for that. Where there is no
// other, held returns once etcd has gone and is back, until when the kubelet is answered by nobody.
func (s *Server) lendAPI(component string) (held func(context.Context) error, back func()) {
	held, back = func(context.Context) error { return nil }, func() {}
	if s.gate == nil || component != staticpod.Etcd && component != staticpod.APIServer {
		return held, back
	}
	back = func() { s.gate.Redirect(apiAddress) }
	other := s.otherAPIServer()
	if other == "" && component == staticpod.APIServer {
		return held, func() {} // refused connections hold nobody up
	}
	s.gate.Redirect(other)
	if other != "" {
		return held, back
	}
	return func(ctx context.Context) error {
		defer s.gate.Redirect(apiAddress)
		return s.awaitEtcdAnew(ctx)
	}, back
}

// otherAPIServer is the kube-apiserver of another server; "" where there is none.
func (s *Server) otherAPIServer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.settings.AdvertiseAddress.String()
	for _, address := range s.apis {
		if host, _, err := net.SplitHostPort(address); err == nil && host != own {
			return address
		}
	}
	return ""
}

// awaitEtcdAnew returns when this server's etcd has gone and takes connections again.
func (s *Server) awaitEtcdAnew(ctx context.Context) error {
	for _, there := range []bool{false, true} {
		for listens(ctx, s.places.etcd) != there {
			if err := wait(ctx, etcdPoll); err != nil {
				return fmt.Errorf("await etcd anew: %w", err)
			}
		}
	}
	return nil
}

// awaitSpare waits until etcd goes on without this server's member.
func (s *Server) awaitSpare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, spareWithin)
	defer cancel()
	for {
		err := member.Spare(ctx, s.memberConfig())
		if err == nil {
			return nil
		}
		if cause := wait(ctx, spareEvery); cause != nil {
			return errors.Join(cause, err)
		}
	}
}

// awaitServing waits until this server's own kube-apiserver serves, whoever answers for it meanwhile.
func (s *Server) awaitServing(ctx context.Context) error {
	config, err := s.readinessConfig()
	if err != nil {
		return err
	}
	return readiness.Wait(ctx, config)
}

// manifestUID is the UID of the pod in a manifest that the kubelet has.
func (s *Server) manifestUID(component string) (string, error) {
	data, err := os.ReadFile(staticpod.Server{DataDir: s.settings.DataDir}.ManifestPath(component))
	if err != nil {
		return "", fmt.Errorf("read static pod: %w", err)
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(data, &pod); err != nil {
		return "", fmt.Errorf("read static pod %s: %w", component, err)
	}
	return string(pod.UID), nil
}
