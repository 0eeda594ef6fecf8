package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"keelson/node/nodeobject"
)

// ControllerConfig says what a Controller works with.
type ControllerConfig struct {
	Node   string           // this machine's
	Client *clientv3.Client // of this machine's own member, and of no other

	// Nodes is the way to the cluster. A server without a kube-apiserver gives one through its load balancer: its
	// member may be the leader. Nil: members do not follow Nodes while this member leads.
	Nodes kubernetes.Interface

	Log *slog.Logger
}

// Controller keeps etcd's membership in order. Every server with a member runs one, and it acts only while that member
// is etcd's raft leader. That is an election which exists anyway, costs no write and has no gap; a Lease would be a
// second one that can differ from it. Two that both think they lead do no harm: members are removed by their id, which
// no other ever gets, and each removal is decided with a quorum behind it.
type Controller struct {
	ControllerConfig
	lister  corelisters.NodeLister
	nodes   informers.SharedInformerFactory
	synced  cache.InformerSynced
	changed chan struct{}
	learner track
	stall   time.Duration
	every   time.Duration
	said    string
}

// Rounds come by themselves when Nodes change; time only brings what etcd does not tell.
const (
	roundEvery   = 5 * time.Second
	learnerEvery = time.Second // while there is a learner
	again        = time.Second // after Nodes have changed
)

// NewController returns one that does nothing before Run.
func NewController(config ControllerConfig) (*Controller, error) {
	if config.Client == nil || config.Node == "" || config.Log == nil {
		return nil, errors.New("make membership controller: client, node and log must be set")
	}
	c := &Controller{ControllerConfig: config, stall: stallAfter, every: roundEvery, changed: make(chan struct{}, 1)}
	if config.Nodes == nil {
		return c, nil
	}
	c.nodes = informers.NewSharedInformerFactoryWithOptions(config.Nodes, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = nodeobject.LabelEtcd + "=true"
	}))
	informer := c.nodes.Core().V1().Nodes()
	c.lister = informer.Lister()
	handler, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.poke() },
		UpdateFunc: func(old, next any) {
			a, isNode := old.(*corev1.Node)
			b, areNodes := next.(*corev1.Node)
			if !isNode || !areNodes || a.UID != b.UID || !maps.Equal(a.Annotations, b.Annotations) {
				c.poke() // not for each of the kubelet's reports
			}
		},
		DeleteFunc: func(any) { c.poke() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	c.synced = handler.HasSynced
	return c, nil
}

func (c *Controller) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Run blocks until ctx ends. What goes wrong is logged, and tried again.
func (c *Controller) Run(ctx context.Context) error {
	if c.nodes != nil {
		c.nodes.StartWithContext(ctx)
		defer c.nodes.Shutdown()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		news := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
			news = true
		case <-timer.C:
		}
		next, err := c.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.tell(err)
		if news {
			next = min(next, again) // leadership may be on its way here because of the same news
		}
		timer.Reset(next)
	}
}

// tell logs an error once, however often it comes.
func (c *Controller) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != c.said && text != "" {
		c.Log.Warn("etcd membership", "error", text)
	}
	c.said = text
}

// round looks once at everything, and tells when to look again.
func (c *Controller) round(ctx context.Context) (time.Duration, error) {
	if c.takenOut() {
		return c.every, c.setCondition(ctx, nil, ErrRemoved, time.Now())
	}
	state, err := own(ctx, c.Client)
	problem := c.setCondition(ctx, state, err, time.Now())
	if err != nil || state.IsLearner || state.Leader != state.Header.MemberId {
		c.learner = track{} // another leader's clock counts now
		return c.every, errors.Join(problem, err)
	}
	list, err := c.members(ctx)
	if err != nil {
		return c.every, errors.Join(problem, err)
	}
	next := c.every
	for _, m := range list {
		if m.IsLearner {
			next = min(learnerEvery, c.every)
			problem = errors.Join(problem, c.tendLearner(ctx, m, state.RaftIndex))
		}
	}
	if c.Nodes != nil && c.synced() {
		problem = errors.Join(problem, c.followNodes(ctx, state.Header.MemberId, list))
	}
	return next, problem
}

func (c *Controller) members(ctx context.Context) ([]*etcdserverpb.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.Client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list etcd members: %w", err)
	}
	return list.Members, nil
}
