// Package nodeevent tells of this machine as events on its Node, where `kubectl describe node` shows them.
//
// Whoever has something to say gives it to a Recorder at any time; what comes before kube-apiserver can be reached is
// held, the newest few. Alike events are counted together and their number is bounded (k8s.io/client-go tools/record:
// 25 at once for each component, then one in five minutes), so nobody can flood the cluster. Events are news: nothing
// depends on their arrival. node/server and node/agent own a Recorder each.
package nodeevent

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Severities.
const (
	Normal  = corev1.EventTypeNormal
	Warning = corev1.EventTypeWarning
)

const (
	// mostText is how long an event's message may be (k8s.io/kubernetes pkg/apis/core/validation/events.go).
	mostText = 1024
	// mostHeld is how many wait for a kube-apiserver.
	mostHeld = 20
)

// Event is one piece of news.
type Event struct {
	Component string // that tells
	Severity  string // Normal or Warning
	Reason    string // one word, for programs
	Text      string // for people
}

// SeverityOf is Warning or Normal.
func SeverityOf(warning bool) string {
	if warning {
		return Warning
	}
	return Normal
}

// Recorder writes events. The zero value is ready, and holds what it is told until Run.
type Recorder struct {
	mu    sync.Mutex
	held  []Event
	write func(Event) // nil: nobody takes them yet
}

// Tell writes an event, or holds it until that can be done. It never waits for the network.
func (r *Recorder) Tell(e Event) {
	if len(e.Text) > mostText {
		e.Text = e.Text[:mostText-3] + "..."
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.write != nil {
		r.write(e)
		return
	}
	r.held = append(r.held, e)
	r.held = r.held[max(0, len(r.held)-mostHeld):]
}

// Run writes events on the Node until ctx ends. The Node need not be there yet.
func (r *Recorder) Run(ctx context.Context, client kubernetes.Interface, node string) error {
	broadcaster := record.NewBroadcaster()
	watch := broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	// The kubelet's events have the name in the place of the uid, and that is where kubectl looks for them.
	about := &corev1.ObjectReference{Kind: "Node", Name: node, UID: types.UID(node)}
	recorders := map[string]record.EventRecorder{}
	write := func(e Event) { // r.mu is held
		to := recorders[e.Component]
		if to == nil {
			to = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: e.Component, Host: node})
			recorders[e.Component] = to
		}
		to.Event(about, e.Severity, e.Reason, e.Text)
	}
	r.mu.Lock()
	for _, e := range r.held {
		write(e)
	}
	r.held, r.write = nil, write
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.write = nil
	r.mu.Unlock()
	watch.Stop()
	broadcaster.Shutdown()
	return nil
}
