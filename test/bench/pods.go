package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

// measurePods starts pods one after the other, their image present, and sees by a watch how far each has come when.
func (b *bench) measurePods(ctx context.Context) error {
	c, _, err := b.up(ctx, "pods")
	if err != nil {
		return err
	}
	if err := c.load(ctx); err != nil {
		return err
	}
	t, err := c.api()
	if err != nil {
		return err
	}
	steps := []figure{
		{what: "pod start: create → container Running, seen by a watch", unit: "ms", must: 150, aim: 60},
		{what: "pod start: create → Ready", unit: "ms"},
		{what: "of that: the create call itself", unit: "ms"},
		{what: "of that: create → bound to the node, seen by the watch", unit: "ms"},
		{what: "of that: bound → Running (engine, network, status write)", unit: "ms"},
		{what: "pod end: delete → gone, the program ending at SIGTERM", unit: "ms"},
	}
	pids, err := c.processes(ctx)
	if err != nil {
		return err
	}
	var karve []int
	for pid := range pids {
		karve = append(karve, pid)
	}
	before, err := measure(karve)
	if err != nil {
		return err
	}
	for i := range steps {
		steps[i].begin()
	}
	for i := range b.pods {
		l, err := onePod(ctx, t, fmt.Sprintf("p%d", i))
		if err != nil {
			return err
		}
		for j, d := range []time.Duration{l.running, l.ready, l.created, l.bound, l.running - l.bound, l.gone} {
			steps[j].add(float64(d) / float64(time.Millisecond))
		}
	}
	after, err := measure(karve)
	if err != nil {
		return err
	}
	for i := range steps {
		steps[i].begin()
	}
	cpu := figure{what: "CPU of karve for one pod's life, programs it ran included", unit: "ms"}
	cpu.begin()
	cpu.add((after.cpu - before.cpu) / float64(b.pods) * 1000)
	b.report.figures = append(append(b.report.figures, steps...), cpu)
	return c.down()
}

// life is when a pod got how far, from the moment its creation was asked for; gone is from that of its deletion.
type life struct{ created, bound, running, ready, gone time.Duration }

func onePod(ctx context.Context, t client.Transport, name string) (life, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pods := client.Of[*corev1.Pod](t)
	var l life
	_, revision, err := pods.List(ctx, "default", metav1.ListOptions{Limit: 1})
	if err != nil {
		return l, err
	}
	w, err := pods.Watch(ctx, "default", metav1.ListOptions{ResourceVersion: revision, FieldSelector: "metadata.name=" + name})
	if err != nil {
		return l, err
	}
	defer w.Stop()
	grace := int64(2)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "app", Image: "bench/app:v1", ImagePullPolicy: corev1.PullNever, Args: []string{"wait"}}}}}
	began := time.Now()
	if _, err := pods.Create(ctx, pod); err != nil {
		return l, err
	}
	l.created = time.Since(began)
	var deleted time.Time
	for ev := range w.ResultChan() {
		now := time.Now()
		p, ok := ev.Object.(*corev1.Pod)
		if !ok {
			return l, fmt.Errorf("watch pod %s: %v", name, ev.Object)
		}
		if ev.Type == "DELETED" {
			l.gone = now.Sub(deleted)
			return l, nil
		}
		if l.bound == 0 && p.Spec.NodeName != "" {
			l.bound = now.Sub(began)
		}
		if s := p.Status.ContainerStatuses; l.running == 0 && len(s) == 1 && s[0].State.Running != nil {
			l.running = now.Sub(began)
		}
		for _, c := range p.Status.Conditions {
			if l.ready == 0 && c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				l.ready = now.Sub(began)
				time.Sleep(100 * time.Millisecond) // until the program has said that it wants to hear SIGTERM
				deleted = time.Now()
				if err := pods.Delete(ctx, "default", name, metav1.DeleteOptions{}); err != nil {
					return l, err
				}
			}
		}
	}
	return l, errors.New("the watch ended before pod " + name + " did")
}
