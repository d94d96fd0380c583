package snapshot

import "k8s.io/apimachinery/pkg/api/resource"

func quantity(milli int64) resource.Quantity {
	return *resource.NewMilliQuantity(milli, resource.DecimalSI)
}
func bytes(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.BinarySI) }
