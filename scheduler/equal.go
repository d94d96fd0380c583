package scheduler

import "k8s.io/apimachinery/pkg/api/equality"

func equal[T any](a, b T) bool { return equality.Semantic.DeepEqual(a, b) }
