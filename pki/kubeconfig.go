package pki

import (
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// The fields of a kubeconfig that karve writes; client-go's own types would pull in most of client-go.
type kubeconfig struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Cert []byte `json:"client-certificate-data"`
		Key  []byte `json:"client-key-data"`
	} `json:"user"`
}

type namedContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

// Kubeconfig returns a kubeconfig for the API server at server (an https URL), trusting the cluster CA, whose cluster,
// user and context are all called contextName. It holds a key: write it with WriteFile.
func (a *Authority) Kubeconfig(server string, certPEM, keyPEM []byte, contextName string) ([]byte, error) {
	if server == "" || contextName == "" {
		return nil, errors.New("make kubeconfig: server and context name are required")
	}
	c := kubeconfig{APIVersion: "v1", Kind: "Config", Clusters: make([]namedCluster, 1), Users: make([]namedUser, 1),
		Contexts: make([]namedContext, 1), CurrentContext: contextName}
	c.Clusters[0].Name, c.Clusters[0].Cluster.Server, c.Clusters[0].Cluster.CA = contextName, server, a.ca.pem
	c.Users[0].Name, c.Users[0].User.Cert, c.Users[0].User.Key = contextName, certPEM, keyPEM
	c.Contexts[0].Name, c.Contexts[0].Context.Cluster, c.Contexts[0].Context.User = contextName, contextName, contextName
	out, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("make kubeconfig: %w", err)
	}
	return out, nil
}

// WriteKubeconfig writes Kubeconfig to path: mode 0600, whole or not at all.
func (a *Authority) WriteKubeconfig(path, server string, certPEM, keyPEM []byte, contextName string) error {
	data, err := a.Kubeconfig(server, certPEM, keyPEM, contextName)
	if err != nil {
		return err
	}
	return WriteFile(path, data)
}
