package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConditions(t *testing.T) {
	now := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	good := Machine{Memory: 8 << 30, MemoryLeft: 4 << 30, Disk: 100, DiskLeft: 50, Inodes: 100, InodesLeft: 50}
	for _, tc := range []struct {
		name    string
		change  func(*Machine)
		network error
		want    string
	}{
		{"good", func(*Machine) {}, nil, "KubeletHasSufficientMemory KubeletHasNoDiskPressure KubeletHasSufficientPID KubeletReady"},
		{"memory", func(m *Machine) { m.MemoryLeft = 50 << 20 }, nil, "KubeletHasInsufficientMemory KubeletHasNoDiskPressure KubeletHasSufficientPID KubeletReady"},
		{"disk", func(m *Machine) { m.DiskLeft = 9 }, nil, "KubeletHasSufficientMemory KubeletHasDiskPressure KubeletHasSufficientPID KubeletReady"},
		{"inodes", func(m *Machine) { m.InodesLeft = 4 }, nil, "KubeletHasSufficientMemory KubeletHasDiskPressure KubeletHasSufficientPID KubeletReady"},
		{"network", func(*Machine) {}, errors.New("down"), "KubeletHasSufficientMemory KubeletHasNoDiskPressure KubeletHasSufficientPID KubeletNotReady"},
	} {
		m := good
		tc.change(&m)
		var got []string
		list := Conditions(&m, tc.network, nil, now)
		for _, c := range list {
			got = append(got, c.Reason)
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: %s", tc.name, s)
		}
	}
	old := metav1.NewTime(now.Add(-time.Hour))
	list := Conditions(&good, nil, &corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: old}}}, now)
	if !list[3].LastTransitionTime.Equal(&old) || !list[3].LastHeartbeatTime.Time.Equal(now) {
		t.Error(fmt.Sprint(list[3]))
	}
}
