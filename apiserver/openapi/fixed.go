package openapi

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
