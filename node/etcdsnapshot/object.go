package etcdsnapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson/node/config"
)

// Names of the resource and its marks (k3s pkg/apis/k3s.cattle.io/v1, pkg/etcd/snapshot.go).
const (
	APIVersion          = "k3s.cattle.io/v1"
	Kind                = "ETCDSnapshotFile"
	LabelStorageNode    = "etcd.rke2.cattle.io/snapshot-storage-node"
	AnnotationTokenHash = "etcd.rke2.cattle.io/snapshot-token-hash"
	StorageS3           = "s3"
)

// S3Config is an object store as RKE2 writes it into requests (k3s pkg/daemons/config, EtcdS3).
type S3Config struct {
	Endpoint      string          `json:"endpoint,omitempty"`
	EndpointCA    string          `json:"endpointCA,omitempty"`
	SkipSSLVerify bool            `json:"skipSSLVerify,omitempty"`
	AccessKey     string          `json:"accessKey,omitempty"`
	SecretKey     config.Secret   `json:"secretKey,omitempty"`
	SessionToken  config.Secret   `json:"sessionToken,omitempty"`
	Bucket        string          `json:"bucket,omitempty"`
	BucketLookup  string          `json:"bucketLookup,omitempty"`
	Region        string          `json:"region,omitempty"`
	Folder        string          `json:"folder,omitempty"`
	Proxy         string          `json:"proxy,omitempty"`
	ConfigSecret  string          `json:"configSecret,omitempty"`
	Insecure      bool            `json:"insecure,omitempty"`
	Timeout       metav1.Duration `json:"timeout,omitempty"`
	Retention     int             `json:"retention,omitempty"`
}

// S3Target is where an object lies, without anything secret.
type S3Target struct {
	Endpoint      string `json:"endpoint,omitempty"`
	EndpointCA    string `json:"endpointCA,omitempty"`
	SkipSSLVerify bool   `json:"skipSSLVerify,omitempty"`
	Bucket        string `json:"bucket,omitempty"`
	BucketLookup  string `json:"bucketLookup,omitempty"`
	Region        string `json:"region,omitempty"`
	Prefix        string `json:"prefix,omitempty"`
	Insecure      bool   `json:"insecure,omitempty"`
}

// Location is an object's, as records and lists show it.
func (t S3Target) Location(name string) string {
	return "s3://" + strings.Join(strings.FieldsFunc(t.Bucket+"/"+t.Prefix+"/"+name, func(r rune) bool { return r == '/' }), "/")
}

// Object is the resource about one snapshot.
type Object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              Spec   `json:"spec"`
	Status            Status `json:"status"`
}

// Spec says what the snapshot is.
type Spec struct {
	SnapshotName string            `json:"snapshotName"`
	NodeName     string            `json:"nodeName"`
	Location     string            `json:"location"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	S3           *S3Target         `json:"s3,omitempty"`
}

// Status says whether it can be used.
type Status struct {
	Size         *resource.Quantity `json:"size,omitempty"`
	CreationTime *metav1.Time       `json:"creationTime,omitempty"`
	ReadyToUse   *bool              `json:"readyToUse,omitempty"`
	Error        *Failure           `json:"error,omitempty"`
}

// Failure is why there is no snapshot.
type Failure struct {
	Time    *metav1.Time `json:"time,omitempty"`
	Message *string      `json:"message,omitempty"`
}

// List is what /db/snapshot answers to "list".
type List struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Object `json:"items"`
}

// ObjectOf makes the resource of a file.
func ObjectOf(f File) Object {
	at, ready := metav1.NewTime(f.Created), f.Failure == ""
	storage := f.Node
	if f.S3 != nil {
		storage = StorageS3
	}
	o := Object{
		TypeMeta: metav1.TypeMeta{APIVersion: APIVersion, Kind: Kind},
		ObjectMeta: metav1.ObjectMeta{
			Name:   objectName(f),
			Labels: map[string]string{LabelStorageNode: storage},
		},
		Spec:   Spec{SnapshotName: f.Name, NodeName: f.Node, Location: f.Location, Metadata: f.Metadata, S3: f.S3},
		Status: Status{CreationTime: &at, ReadyToUse: &ready},
	}
	if f.TokenHash != "" {
		o.Annotations = map[string]string{AnnotationTokenHash: f.TokenHash}
	}
	if ready {
		o.Status.Size = resource.NewQuantity(f.Size, resource.DecimalSI)
	} else {
		message := f.Failure
		o.Status.Error = &Failure{Time: &at, Message: &message}
	}
	return o
}

// objectName is local- or s3-, the file's name in lower case, and 6 hex digits of what makes it one of its kind.
func objectName(f File) string {
	prefix := "local-"
	if f.S3 != nil {
		prefix = "s3-"
	}
	clean := []byte(strings.ToLower(f.Name))
	for i, c := range clean {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' {
			clean[i] = '-'
		}
	}
	// Names of resources have up to 253 characters, and each part between dots begins and ends with a letter or digit.
	parts := strings.Split(string(clean[:min(len(clean), 200)]), ".")
	for i := range parts {
		parts[i] = strings.Trim(parts[i], "-")
	}
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	sum := sha256.Sum256([]byte(f.Node + f.Location))
	return prefix + strings.Join(parts, ".") + "-" + hex.EncodeToString(sum[:])[:6]
}
