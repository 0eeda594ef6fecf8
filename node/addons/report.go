package addons

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	events "k8s.io/client-go/tools/record"
)

// Reasons of events, which are k3s's (pkg/deploy).
const (
	reasonRead     = "ReadManifestFailed"
	reasonParse    = "ParseManifestFailed"
	reasonValidate = "ValidateManifestFailed"
	reasonApply    = "ApplyManifestFailed"
	reasonApplying = "ApplyingManifest"
	reasonApplied  = "AppliedManifest"
	reasonDeleting = "DeletingManifest"
)

// most is how long an event's message may be (k8s.io/kubernetes pkg/apis/core/validation/events.go).
const most = 1024

// note is an event of an add-on.
type note struct{ severity, reason, text string }

// report is what is to be written down of an attempt: the record, and then the events on it, which need its uid.
type report struct {
	record record
	notes  []note
}

func (r *report) note(severity, reason, text string) {
	if len(text) > most {
		text = text[:most-3] + "..."
	}
	r.notes = append(r.notes, note{severity, reason, text})
}

// report writes down what has been done, and tells whether nothing is left to be written.
func (c *Controller) report(ctx context.Context) bool {
	for _, addon := range slices.Sorted(maps.Keys(c.reports)) {
		r := c.reports[addon]
		if err := c.record(ctx, &r); err != nil {
			if !errors.Is(err, errNotServed) {
				c.cfg.Log.Warn("add-ons", "error", err)
			}
			continue
		}
		for _, n := range r.notes {
			c.tell(r.record, n)
		}
		delete(c.reports, addon)
	}
	return len(c.reports) == 0
}

// record writes down an attempt's record. One that was made while there was none to be read adds to what is found now, and
// has its file looked at again: nothing that left it was pruned.
func (c *Controller) record(ctx context.Context, r *report) error {
	if r.record.uid == "" {
		known, err := c.records.load(ctx, r.record.name)
		if err != nil {
			return err
		}
		if known.uid != "" {
			r.record.kinds, r.record.checksum = merge(known.kinds, r.record.kinds), known.checksum
			delete(c.done, r.record.source)
		}
	}
	return c.records.save(ctx, &r.record)
}

// startTelling has events written from now on, alike ones counted together.
func (c *Controller) startTelling() (stop func()) {
	broadcaster := events.NewBroadcaster()
	watch := broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.cfg.Events.Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "deploy", Host: c.cfg.Node})
	c.tell = func(rec record, n note) {
		recorder.Event(&corev1.ObjectReference{
			APIVersion: "k3s.cattle.io/v1", Kind: "Addon", Namespace: metav1.NamespaceSystem, Name: rec.name, UID: rec.uid,
		}, n.severity, n.reason, n.text)
	}
	return func() {
		watch.Stop()
		broadcaster.Shutdown()
	}
}
