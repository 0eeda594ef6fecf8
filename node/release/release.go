// Package release brings one Helm release in line with a chart and values, and removes it: what RKE2 has a job, an image and
// a cluster-admin pod for (k3s-io/klipper-helm, entry), by the Helm SDK in this process.
//
// It fetches no charts and merges no values: node/helmchart does, says when, and lets nobody else work on the same release
// meanwhile. Releases are Helm's own records, which `helm list` and `helm history` show.
package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"helm.sh/helm/v4/pkg/action"
	chartif "helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	releasecommon "helm.sh/helm/v4/pkg/release/common"
	v1 "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
)

// LabelHash is on a release's record: what it was made of. It is RKE2's (k3s-io/helm-controller, KeyConfigHash).
const LabelHash = "helmcharts.helm.cattle.io/configHash"

// maxHistory is how many revisions are kept: klipper-helm's.
const maxHistory = 10

// Policy is what is done about a release that failed.
type Policy string

// Policies. Whatever the policy, a release that once worked is never uninstalled: RKE2's default, Reinstall, took what users
// had in a chart's custom resources with it.
const (
	Reinstall Policy = "reinstall" // one that never worked is uninstalled and installed anew
	Retry     Policy = "retry"     // it is upgraded
	Abort     Policy = "abort"     // nothing, until somebody has mended it
)

// ErrAborted is a failed release that its policy leaves alone.
var ErrAborted = errors.New("the release has failed, and failurePolicy abort leaves it to you: mend it with helm, or set another policy")

// Wanted is a release as it should be.
type Wanted struct {
	Name, Namespace string
	Archive         []byte // chart, .tgz
	Values          map[string]any
	Hash            string // of all that it is made of: at most 63 characters, of those that a label takes

	CreateNamespace, TakeOwnership, ForceConflicts bool

	ServerSide string        // true, false or auto; empty: true for an installation, auto for an upgrade
	Timeout    time.Duration // of hooks; 0: Helm's default of five minutes
	Policy     Policy        // empty: Retry
}

// Done tells what Ensure did.
type Done string

// What Ensure may have done.
const (
	Nothing     Done = "nothing"
	Installed   Done = "installed"
	Upgraded    Done = "upgraded"
	Reinstalled Done = "reinstalled"
)

// Config is what Releases need.
type Config struct {
	Records driver.Driver // where Helm keeps its records: of one namespace
	Kube    kube.Interface
	Getter  action.RESTClientGetter // nil where Capabilities are given
	// Capabilities of the cluster; nil: it is asked.
	Capabilities *common.Capabilities
	Log          *slog.Logger
}

// Releases are those of one namespace.
type Releases struct {
	config *action.Configuration
	log    *slog.Logger
}

// New checks the configuration.
func New(c Config) (*Releases, error) {
	if c.Records == nil || c.Kube == nil || c.Log == nil || c.Getter == nil && c.Capabilities == nil {
		return nil, errors.New("releases: records, a client, capabilities or a way to them, and a log are needed")
	}
	config := action.NewConfiguration(action.ConfigurationSetLogger(c.Log.Handler()))
	config.Releases = storage.Init(c.Records)
	config.Releases.MaxHistory = maxHistory
	config.KubeClient, config.RESTClientGetter, config.Capabilities = c.Kube, c.Getter, c.Capabilities
	return &Releases{config: config, log: c.Log}, nil
}

// Ensure makes a release what is wanted. It is not to be asked for one release twice at a time, by any server. What it has
// begun it finishes though ctx ends: Helm would only stop waiting for itself.
func (r *Releases) Ensure(ctx context.Context, w Wanted) (Done, error) {
	fail := func(err error) (Done, error) {
		return Nothing, fmt.Errorf("release %s/%s: %w", w.Namespace, w.Name, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	loaded, err := loader.LoadArchive(bytes.NewReader(w.Archive))
	if err != nil {
		return fail(fmt.Errorf("read chart: %w", err))
	}
	if err := complete(loaded); err != nil {
		return fail(err)
	}
	last, err := r.last(w.Name)
	if err != nil {
		return fail(err)
	}
	if last != nil && last.Info.Status == releasecommon.StatusDeployed && last.Labels[LabelHash] == w.Hash {
		return Nothing, nil
	}
	if last, err = r.recover(last); err != nil {
		return fail(err)
	}
	switch {
	case last == nil:
		if err := r.install(w, loaded, false); err != nil {
			return fail(err)
		}
		return Installed, nil
	case last.Info.Status == releasecommon.StatusUninstalled: // its history was kept
		if err := r.install(w, loaded, true); err != nil {
			return fail(err)
		}
		return Installed, nil
	case last.Info.Status == releasecommon.StatusDeployed:
	case w.Policy == Abort:
		return fail(ErrAborted)
	case w.Policy == Reinstall && !r.worked(w.Name):
		if err := r.Remove(ctx, w.Name, w.Timeout); err != nil {
			return Nothing, err
		}
		if err := r.install(w, loaded, false); err != nil {
			return fail(err)
		}
		return Reinstalled, nil
	}
	if err := r.upgrade(w, loaded); err != nil {
		return fail(err)
	}
	return Upgraded, nil
}

// Remove uninstalls a release with its history. One that is not there is no error.
func (r *Releases) Remove(ctx context.Context, name string, timeout time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := action.NewUninstall(r.config)
	u.IgnoreNotFound, u.Timeout, u.WaitStrategy, u.DeletionPropagation = true, limit(timeout), kube.StatusWatcherStrategy, "background"
	if _, err := u.Run(name); err != nil {
		return fmt.Errorf("uninstall release %s: %w", name, err)
	}
	return nil
}

func (r *Releases) install(w Wanted, c *chart.Chart, replace bool) error {
	i := action.NewInstall(r.config)
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.Replace = w.Name, w.Namespace, w.CreateNamespace, replace
	i.TakeOwnership, i.ForceConflicts, i.ServerSideApply = w.TakeOwnership, w.ForceConflicts, w.ServerSide != "false"
	i.Timeout, i.WaitStrategy, i.Labels = limit(w.Timeout), kube.HookOnlyStrategy, map[string]string{LabelHash: w.Hash}
	if _, err := i.Run(c, w.Values); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

func (r *Releases) upgrade(w Wanted, c *chart.Chart) error {
	u := action.NewUpgrade(r.config)
	u.Namespace, u.MaxHistory, u.ResetValues = w.Namespace, maxHistory, true
	u.TakeOwnership, u.ForceConflicts, u.ServerSideApply = w.TakeOwnership, w.ForceConflicts, "auto"
	if w.ServerSide != "" {
		u.ServerSideApply = w.ServerSide
	}
	u.Timeout, u.WaitStrategy, u.Labels = limit(w.Timeout), kube.HookOnlyStrategy, map[string]string{LabelHash: w.Hash}
	if _, err := u.Run(w.Name, c, w.Values); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// complete refuses a chart that is not one to be installed, or lacks charts that it is made of.
func complete(c *chart.Chart) error {
	if c.Metadata.Type != "" && c.Metadata.Type != "application" {
		return fmt.Errorf("chart %s is of type %s, of which there is nothing to install", c.Name(), c.Metadata.Type)
	}
	var needed []chartif.Dependency
	for _, d := range c.Metadata.Dependencies {
		needed = append(needed, d)
	}
	if err := action.CheckDependencies(c, needed); err != nil {
		return fmt.Errorf("chart %s: %w", c.Name(), err)
	}
	return nil
}

// limit is Helm's own where none is given.
func limit(given time.Duration) time.Duration {
	if given <= 0 {
		return 5 * time.Minute
	}
	return given
}

// last is the newest revision of a release, nil where there is none.
func (r *Releases) last(name string) (*v1.Release, error) {
	found, err := r.config.Releases.Last(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read its history: %w", err)
	}
	last, ok := found.(*v1.Release)
	if !ok {
		return nil, fmt.Errorf("its newest revision is a %T", found)
	}
	return last, nil
}

// recover ends what a server that died, or was stopped, had begun: nobody works on a release but who asks here.
func (r *Releases) recover(last *v1.Release) (*v1.Release, error) {
	if last == nil || !last.Info.Status.IsPending() && last.Info.Status != releasecommon.StatusUninstalling && last.Info.Status != releasecommon.StatusUnknown {
		return last, nil
	}
	r.log.Warn("a release was left half way", "release", last.Name, "revision", last.Version, "status", last.Info.Status.String())
	last.SetStatus(releasecommon.StatusFailed, "left "+last.Info.Status.String()+" by a server that did not finish")
	if err := r.config.Releases.Update(last); err != nil {
		return nil, fmt.Errorf("end what was left half way: %w", err)
	}
	return last, nil
}

// worked tells whether any revision that is on record was deployed whole.
func (r *Releases) worked(name string) bool {
	all, err := r.config.Releases.History(name)
	if err != nil {
		return true // nothing is removed on a doubt
	}
	for _, one := range all {
		if rel, ok := one.(*v1.Release); !ok || rel.Info.Status == releasecommon.StatusDeployed || rel.Info.Status == releasecommon.StatusSuperseded {
			return true
		}
	}
	return false
}
