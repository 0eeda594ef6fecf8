package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/rest"

	"keelson/node/config"
	"keelson/node/encryption"
	"keelson/node/reencryption"
	"keelson/node/supervisorapi"
)

// code is that of the refusal in err, 0 where it is none.
func code(err error) int {
	var r *supervisorapi.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return 0
}

func TestEncryptionBeforeItServes(t *testing.T) {
	s := newServer(t, nil)
	if _, err := s.encryptStatus(t.Context()); code(err) != http.StatusServiceUnavailable {
		t.Errorf("status: got %v", err)
	}
	if err := s.encryptConfig(t.Context(), []byte(`{"enable":true}`)); code(err) != http.StatusServiceUnavailable {
		t.Errorf("change: got %v", err)
	}
}

// recordOf is the cluster's record, which never changes.
type recordOf struct{ settings encryption.Settings }

func (r recordOf) Load(context.Context) (encryption.Settings, error) { return r.settings, nil }
func (r recordOf) Replace(context.Context, encryption.Settings, encryption.Settings) error {
	return errors.New("nobody may change it")
}

// TestEncryptionRefusals: what the other side can mend is told, whatever is wrong.
func TestEncryptionRefusals(t *testing.T) {
	s := newServer(t, nil)
	data, err := encryption.Config("aescbc")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := encryption.Load(data, []byte(encryption.Settings{Stage: encryption.Start, Data: data}.Mark()))
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	members := errors.New("no majority")
	m, err := reencryption.New(reencryption.Config{
		Record: recordOf{parsed}, Nodes: fake.NewClientset(), Secrets: metadatafake.NewSimpleMetadataClient(scheme),
		Members: func(context.Context) ([]string, error) { return nil, members },
		Raw:     func(context.Context, func(string, []byte)) error { return nil },
		Now:     time.Now, Log: slog.New(slog.DiscardHandler), Deadline: 100 * time.Millisecond, Patience: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.encryption.Store(m)
	go func() { _ = m.Run(t.Context()) }()

	answer, err := s.encryptStatus(t.Context())
	status, ok := answer.(reencryption.Status)
	if err != nil || !ok || status.Stage != encryption.Start || status.HashMatch || !strings.Contains(status.HashError, members.Error()) || !strings.HasPrefix(status.ActiveKey, "AES-CBC ") {
		t.Errorf("status: got %+v, %v", answer, err)
	}
	for _, c := range []struct{ body, want string }{
		{`{}`, "is not of the form"}, {`null`, "is not of the form"}, {`{"stage":"dance"}`, "dance"}, {`{"stage":"rotate"}`, encryption.ErrStage.Error()},
	} {
		if err := s.encryptConfig(t.Context(), []byte(c.body)); code(err) != http.StatusBadRequest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a refusal with %q", c.body, err, c.want)
		}
	}
}

// TestStartEncryption begins both parts, and leaves the settings of other clients alone.
func TestStartEncryption(t *testing.T) {
	for _, noAPI := range []bool{false, true} {
		s := newServer(t, func(c *config.Config) {
			c.DisableAPIServer, c.DisableControllerManager, c.DisableScheduler = noAPI, noAPI, noAPI
		})
		prepare(t, s)
		s.client = fake.NewClientset()
		var begun []string
		s.background = func(name string, _ func(context.Context) error) { begun = append(begun, name) }
		if err := s.startEncryption(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"encryption announcer", "encryption of Secrets"}; !slices.Equal(begun, want) || s.encryption.Load() == nil {
			t.Errorf("began %q, want %q", begun, want)
		}
	}
	if err := newServer(t, nil).startEncryption(t.Context()); err == nil || !strings.Contains(err.Error(), "supervisor kubeconfig") {
		t.Errorf("without a kubeconfig: got %v", err)
	}
}

func TestOwnAPIServerIsAskedPastTheGate(t *testing.T) {
	gated := &rest.Config{Host: "https://" + gateAddress}
	if _, err := ownAPIServer(gated); err != nil || gated.Host != "https://"+gateAddress {
		t.Errorf("got %v, and other clients go to %s", err, gated.Host)
	}
	if _, err := ownAPIServer(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: "/no/such/file"}}); err == nil {
		t.Error("an authority that is not there was taken")
	}
}

// membersOf is etcd's list of members.
type membersOf struct {
	clientv3.Cluster
	names []string
	err   error
}

func (c membersOf) MemberList(context.Context, ...clientv3.OpOption) (*clientv3.MemberListResponse, error) {
	if c.err != nil {
		return nil, c.err
	}
	var out clientv3.MemberListResponse
	for _, n := range c.names {
		out.Members = append(out.Members, &etcdserverpb.Member{Name: n})
	}
	return &out, nil
}

func TestMemberNames(t *testing.T) {
	s := newServer(t, nil)
	s.etcd = &clientv3.Client{Cluster: membersOf{names: []string{"cp-1-a", "", "cp-2-b"}}}
	if got, err := s.memberNames(t.Context()); err != nil || !slices.Equal(got, []string{"cp-1-a", "", "cp-2-b"}) {
		t.Errorf("got %q, %v: a member that has not started counts", got, err)
	}
	down := errors.New("down")
	s.etcd = &clientv3.Client{Cluster: membersOf{err: down}}
	if _, err := s.memberNames(t.Context()); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

// TestTellRecordNeverWaits: the announcer may be busy, and one word is enough for it.
func TestTellRecordNeverWaits(t *testing.T) {
	s := newServer(t, nil)
	for range 3 {
		s.tellRecord()
	}
	<-s.recordChanged
	select {
	case <-s.recordChanged:
		t.Error("one change was told twice")
	default:
	}
}

func TestEncryptionFilesNeedNoRestart(t *testing.T) {
	s := newServer(t, nil)
	key := s.server("tls", "service.key")
	written := []string{s.server("cred", "encryption-config.json"), key, s.server("cred", "encryption-state.json")}
	if got := s.needRestart(written); !slices.Equal(got, []string{key}) {
		t.Errorf("got %q, want %q", got, key)
	}
	if len(written) != 3 || written[1] != key {
		t.Errorf("the caller's list was changed: %q", written)
	}
}
