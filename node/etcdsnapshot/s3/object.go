package s3

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"keelson/node/etcdsnapshot"
)

// metadataFolder holds what users have annotated snapshots with, beside the snapshots (k3s: the same).
const metadataFolder = ".metadata"

// Put uploads a file and asks for its size back.
func (s *Store) Put(ctx context.Context, file string, f etcdsnapshot.File) (etcdsnapshot.File, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	in, err := os.Open(file)
	if err != nil {
		return f, fmt.Errorf("upload snapshot: %w", err)
	}
	defer in.Close()
	stat, err := in.Stat()
	if err != nil {
		return f, fmt.Errorf("upload snapshot: %w", err)
	}
	contentType := "application/octet-stream"
	if etcdsnapshot.IsZip(file) {
		contentType = "application/zip"
	}
	// The library streams from whatever can read at an offset, and would keep a plain reader's parts in memory.
	_, err = s.client.PutObject(ctx, s.config.Bucket, s.key(f.Name), in, stat.Size(), minio.PutObjectOptions{
		ContentType: contentType, PartSize: s.part, NumThreads: uploads,
		UserMetadata: map[string]string{metaNode: f.Node, metaTokenHash: f.TokenHash, metaCluster: s.cluster},
	})
	if err != nil {
		return f, s.explain("upload "+f.Name, err)
	}
	info, err := s.client.StatObject(ctx, s.config.Bucket, s.key(f.Name), minio.StatObjectOptions{})
	if err != nil {
		return f, s.explain("look at "+f.Name, err)
	}
	if info.Size != stat.Size() {
		return f, fmt.Errorf("s3 %s/%s: %s has %d bytes there and %d here", s.config.Endpoint, s.config.Bucket, f.Name, info.Size, stat.Size())
	}
	if err := s.putMetadata(ctx, f); err != nil {
		return f, err
	}
	target := s.Target()
	f.S3, f.Location, f.Size = &target, target.Location(f.Name), info.Size
	return f, nil
}

func (s *Store) putMetadata(ctx context.Context, f etcdsnapshot.File) error {
	if len(f.Metadata) == 0 {
		return nil
	}
	data, err := json.Marshal(f.Metadata)
	if err != nil {
		return fmt.Errorf("upload snapshot metadata: %w", err)
	}
	_, err = s.client.PutObject(ctx, s.config.Bucket, s.key(path.Join(metadataFolder, f.Name)), strings.NewReader(string(data)), int64(len(data)),
		minio.PutObjectOptions{ContentType: "application/json"})
	if err != nil {
		return s.explain("upload metadata of "+f.Name, err)
	}
	return nil
}

// List returns the snapshots of the folder, whoever took them. Only who took each is asked for one by one.
func (s *Store) List(ctx context.Context) ([]etcdsnapshot.File, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel() // ends the library's goroutine too
	prefix := s.key("")
	if prefix != "" {
		prefix += "/"
	}
	target := s.Target()
	var files []etcdsnapshot.File
	for o := range s.client.ListObjects(ctx, s.config.Bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		if o.Err != nil {
			return nil, s.explain("list", o.Err)
		}
		name := strings.TrimPrefix(o.Key, prefix)
		if etcdsnapshot.CheckFile(name) != nil {
			continue // folders, and the metadata
		}
		f := etcdsnapshot.File{Name: name, Node: etcdsnapshot.StorageS3, Location: target.Location(name), Size: o.Size,
			Created: o.LastModified.UTC().Truncate(time.Second), S3: &target}
		info, err := s.client.StatObject(ctx, s.config.Bucket, o.Key, minio.StatObjectOptions{})
		if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, s.explain("look at "+name, err)
		}
		if node := info.UserMetadata[metaNode]; node != "" {
			f.Node = node
		}
		f.TokenHash = info.UserMetadata[metaTokenHash]
		files = append(files, f)
	}
	if err := ctx.Err(); err != nil {
		return nil, s.explain("list", err)
	}
	return files, nil
}

// Delete removes a snapshot and its metadata.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := etcdsnapshot.CheckFile(name); err != nil {
		return fmt.Errorf("%w: %w", etcdsnapshot.ErrRequest, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	for _, key := range []string{s.key(name), s.key(path.Join(metadataFolder, name))} {
		if err := s.client.RemoveObject(ctx, s.config.Bucket, key, minio.RemoveObjectOptions{}); err != nil {
			return s.explain("delete "+key, err)
		}
	}
	return nil
}

// Fetch downloads a snapshot to path, which it makes whole or not at all. The caller verifies it.
func (s *Store) Fetch(ctx context.Context, name, file string) (err error) {
	if err := etcdsnapshot.CheckFile(name); err != nil {
		return fmt.Errorf("%w: %w", etcdsnapshot.ErrRequest, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	object, err := s.client.GetObject(ctx, s.config.Bucket, s.key(name), minio.GetObjectOptions{})
	if err != nil {
		return s.explain("download "+name, err)
	}
	defer object.Close()
	info, err := object.Stat()
	if err != nil {
		return s.explain("download "+name, err)
	}
	out, err := os.OpenFile(file+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("download snapshot: %w", err)
	}
	defer os.Remove(out.Name())
	n, err := io.Copy(out, object)
	if err != nil {
		err = s.explain("download "+name, err)
	} else if n != info.Size {
		err = fmt.Errorf("download %s: %d of %d bytes came", name, n, info.Size)
	}
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), file); err != nil {
		return fmt.Errorf("download snapshot: %w", err)
	}
	return nil
}
