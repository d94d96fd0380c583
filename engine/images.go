package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/image"
)

// PullImage fetches an image and returns its id.
func (e *Engine) PullImage(ctx context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	a := r.GetAuth()
	im, err := e.images.Pull(ctx, r.GetImage().GetImage(), image.PullOptions{
		Auth: image.Auth{Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(),
			IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken()},
		Progress: e.opts.PullProgress,
	})
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: im.ID}, nil
}

// ListImages lists the images of the store, or the one that a filter names.
func (e *Engine) ListImages(_ context.Context, r *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	if name := r.GetFilter().GetImage().GetImage(); name != "" {
		im, err := e.images.Find(name)
		if err != nil {
			return &runtimeapi.ListImagesResponse{}, nil
		}
		return &runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{e.imageMessage(im)}}, nil
	}
	resp := &runtimeapi.ListImagesResponse{}
	for _, im := range e.images.List() {
		resp.Images = append(resp.Images, e.imageMessage(im))
	}
	return resp, nil
}

func (e *Engine) imageMessage(im *image.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{Id: im.ID, RepoTags: im.Tags, RepoDigests: im.Digests, Size: uint64(im.Size), Pinned: im.Pinned,
		Spec: &runtimeapi.ImageSpec{Image: im.ID}}
	if cfg, err := e.images.Config(im); err == nil {
		user, _, _ := strings.Cut(cfg.Config.User, ":")
		if n, err := strconv.ParseInt(user, 10, 64); err == nil {
			out.Uid = &runtimeapi.Int64Value{Value: n}
		} else {
			out.Username = user
		}
	}
	return out
}

// ImageStatus describes an image; one that is not there gives an empty answer.
func (e *Engine) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	im, err := e.images.Find(r.GetImage().GetImage())
	if err != nil {
		if status.Code(notFound(err)) == codes.NotFound {
			return &runtimeapi.ImageStatusResponse{}, nil
		}
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	resp := &runtimeapi.ImageStatusResponse{Image: e.imageMessage(im)}
	if r.Verbose {
		if cfg, err := e.images.Config(im); err == nil {
			b, _ := json.Marshal(map[string]any{"imageSpec": cfg, "chains": im.Chains})
			resp.Info = map[string]string{"info": string(b)}
		}
	}
	return resp, nil
}

// RemoveImage removes an image with all its names. Layers that containers use stay as long as those.
func (e *Engine) RemoveImage(_ context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	if err := e.images.Remove(r.GetImage().GetImage()); err != nil {
		return nil, err
	}
	e.mu.RLock()
	var inUse []string
	for _, c := range e.ctrs {
		inUse = append(inUse, c.rec.Chains...)
	}
	e.mu.RUnlock()
	if err := e.images.Collect(inUse); err != nil {
		return nil, fmt.Errorf("remove layers: %w", err)
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo tells where images and containers are kept and how much they take.
func (e *Engine) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	usage := func(dir string) *runtimeapi.FilesystemUsage {
		bytes, inodes := e.disk.of("dir "+dir, dir)
		return &runtimeapi.FilesystemUsage{Timestamp: time.Now().UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: dir},
			UsedBytes: &runtimeapi.UInt64Value{Value: bytes}, InodesUsed: &runtimeapi.UInt64Value{Value: inodes}}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(e.opts.Root, &st); err != nil {
		return nil, fmt.Errorf("look at image directory: %w", err)
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{usage(e.rootDir("snapshots"))},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{usage(e.rootDir("containers"))},
	}, nil
}
