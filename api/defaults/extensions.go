package defaults

import (
	"strings"

	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiregv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func addExtensions(t table) {
	set(t, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", crd)
	set(t, "apiregistration.k8s.io", "v1", "APIService", func(o *apiregv1.APIService) {
		if o.Spec.Service != nil {
			unset(&o.Spec.Service.Port, int32(443))
		}
	})
}

func crd(o *apiextv1.CustomResourceDefinition) {
	s := &o.Spec
	zero(&s.Names.Singular, strings.ToLower(s.Names.Kind))
	if s.Names.ListKind == "" && s.Names.Kind != "" {
		s.Names.ListKind = s.Names.Kind + "List"
	}
	unset(&s.Conversion, apiextv1.CustomResourceConversion{Strategy: apiextv1.NoneConverter})
	if w := s.Conversion.Webhook; w != nil && w.ClientConfig != nil && w.ClientConfig.Service != nil {
		unset(&w.ClientConfig.Service.Port, int32(443))
	}
}
