package openapi

import "strings"

// Endpoints that are no resource's: discovery, the version and the issuer of service account tokens.

func fixed(path, id, text, tag, result string, types ...string) endpoint {
	o := operation{method: "get", id: id, text: text, tag: tag, result: result, consumes: types, produce: types, answers: ok, noKind: true}
	return endpoint{path: path, ops: []operation{o}}
}

// text is an endpoint whose answer has no definition.
func text(path, id, about, tag, kind string) endpoint {
	e := fixed(path, id, about, tag, "", kind)
	e.ops[0].consumes = nil
	return e
}

func coreVersions() endpoint {
	return fixed("/api/", "getCoreAPIVersions", "get available API versions", "core", meta+"APIVersions", encodings...)
}

func groups() endpoint {
	return fixed("/apis/", "getAPIVersions", "get available API versions", "apis", meta+"APIGroupList", encodings...)
}

func group(name string) endpoint {
	return fixed("/apis/"+name+"/", "get"+camel(name)+"APIGroup", "get information of a group", tag(name), meta+"APIGroup", encodings...)
}

func resources(group, version string) endpoint {
	return fixed(basePath(group, version)+"/", "get"+camel(group)+camel(version)+"APIResources", "get available resources", tag(group)+"_"+version,
		meta+"APIResourceList", encodings...)
}

func version() endpoint {
	return fixed("/version/", "getCodeVersion", "get the version information for this server", "version", "io.k8s.apimachinery.pkg.version.Info", "application/json")
}

func keys() endpoint {
	return text("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset",
		"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", "openid", "application/jwk-set+json")
}

func issuer() endpoint {
	return text("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration",
		"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", "WellKnown", "application/json")
}

// unserved are the versions of groups that options and watch events are published for, though nothing else of theirs is served.
var unserved = strings.Fields("admission.k8s.io/v1 admission.k8s.io/v1beta1 admissionregistration.k8s.io/v1alpha1 admissionregistration.k8s.io/v1beta1 " +
	"apiextensions.k8s.io/v1beta1 apiregistration.k8s.io/v1beta1 apps/v1beta1 apps/v1beta2 authentication.k8s.io/v1alpha1 " +
	"authentication.k8s.io/v1beta1 authorization.k8s.io/v1beta1 batch/v1beta1 certificates.k8s.io/v1alpha1 " +
	"certificates.k8s.io/v1beta1 coordination.k8s.io/v1alpha2 coordination.k8s.io/v1beta1 discovery.k8s.io/v1beta1 " +
	"events.k8s.io/v1beta1 extensions/v1beta1 flowcontrol.apiserver.k8s.io/v1beta1 flowcontrol.apiserver.k8s.io/v1beta2 " +
	"flowcontrol.apiserver.k8s.io/v1beta3 imagepolicy.k8s.io/v1alpha1 internal.apiserver.k8s.io/v1alpha1 " +
	"networking.k8s.io/v1beta1 node.k8s.io/v1alpha1 node.k8s.io/v1beta1 policy/v1beta1 rbac.authorization.k8s.io/v1alpha1 " +
	"rbac.authorization.k8s.io/v1beta1 resource.k8s.io/v1alpha3 resource.k8s.io/v1beta1 resource.k8s.io/v1beta2 " +
	"scheduling.k8s.io/v1alpha2 scheduling.k8s.io/v1beta1 storage.k8s.io/v1alpha1 storage.k8s.io/v1beta1 " +
	"storagemigration.k8s.io/v1beta1")
