// Package image decides whether an image has to be pulled, pulls it with the pod's credentials, and frees space when the
// disk runs full. kubelet/podrun calls it before a container is made. It stores nothing itself: images lie with the
// runtime. When to try again after a failure is podrun's business.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/cri"
)

// Failure is why an image is not there: the reason a container waits for.
type Failure struct {
	Reason, Message string
	// Pull tells that the registry was asked: the next try backs off.
	Pull bool
}

func (f *Failure) Error() string { return f.Message }

// Puller pulls images. It is safe for concurrent use.
type Puller struct {
	images cri.Images
	log    *slog.Logger
	slots  chan struct{}
}

// New returns a puller that pulls at most parallel images at a time.
func New(images cri.Images, log *slog.Logger, parallel int) *Puller {
	return &Puller{images: images, log: log, slots: make(chan struct{}, parallel)}
}

// Emit records an event of the container.
type Emit func(eventType, reason, message string)

// Request is one image wanted by one container.
type Request struct {
	Image   string
	Policy  corev1.PullPolicy
	Sandbox *runtimeapi.PodSandboxConfig
	Secrets []*corev1.Secret
	Emit    Emit
}

// Canonical returns the image with its default tag, or an error when it is no image name.
func Canonical(image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format", image, image)
	}
	if _, digest := ref.(name.Digest); !digest && !strings.HasSuffix(image, ":"+ref.Identifier()) {
		return image + ":" + ref.Identifier(), nil
	}
	return image, nil
}

// Ensure returns the image as the runtime knows it, pulling it first where the policy says so.
func (p *Puller) Ensure(ctx context.Context, r *Request) (*runtimeapi.Image, *Failure) {
	image, err := Canonical(r.Image)
	if err != nil {
		r.Emit(corev1.EventTypeWarning, "InspectFailed", err.Error())
		return nil, &Failure{Reason: "InvalidImageName", Message: err.Error()}
	}
	have, err := p.status(ctx, image)
	if err != nil {
		message := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err)
		r.Emit(corev1.EventTypeWarning, "InspectFailed", message)
		return nil, &Failure{Reason: "ImageInspectError", Message: message}
	}
	switch {
	case have != nil && r.Policy != corev1.PullAlways:
		r.Emit(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
		return have, nil
	case r.Policy == corev1.PullNever && have == nil:
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		r.Emit(corev1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil, &Failure{Reason: "ErrImageNeverPull", Message: message}
	}
	return p.pull(ctx, image, r)
}

func (p *Puller) status(ctx context.Context, image string) (*runtimeapi.Image, error) {
	got, err := p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		return nil, err
	}
	return got.GetImage(), nil
}

func (p *Puller) pull(ctx context.Context, image string, r *Request) (*runtimeapi.Image, *Failure) {
	asked := time.Now()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, &Failure{Reason: "ErrImagePull", Message: ctx.Err().Error()}
	}
	r.Emit(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	began := time.Now()
	auths := Credentials(image, r.Secrets)
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	var errs []error
	for _, a := range auths {
		got, err := p.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, Auth: a, SandboxConfig: r.Sandbox})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		have, err := p.status(ctx, image)
		if err != nil || have == nil {
			have = &runtimeapi.Image{Id: got.ImageRef}
		}
		now := time.Now()
		r.Emit(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
			r.Image, now.Sub(began).Truncate(time.Millisecond), now.Sub(asked).Truncate(time.Millisecond), have.Size))
		return have, nil
	}
	err := errors.Join(errs...)
	if len(errs) == 1 {
		err = errs[0]
	}
	message := fmt.Sprintf("failed to pull image %q: %v", r.Image, err)
	r.Emit(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, err))
	return nil, &Failure{Reason: "ErrImagePull", Message: message, Pull: true}
}

// Collect removes images that inUse does not claim and that are not pinned, the largest first, until freed bytes have been
// given back. It returns how many it gave back.
func (p *Puller) Collect(ctx context.Context, inUse func(*runtimeapi.Image) bool, want uint64) (uint64, error) {
	list, err := p.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return 0, fmt.Errorf("list images: %w", err)
	}
	var freed uint64
	for _, i := range list.Images {
		if freed >= want {
			break
		}
		if i.Pinned || inUse(i) {
			continue
		}
		if _, err := p.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.Id}}); err != nil {
			p.log.Warn("image not removed", "image", i.Id, "err", err)
			continue
		}
		freed += i.Size
	}
	return freed, nil
}
