package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api/codec"
	"karve/store"
	"karve/store/engine/pebble"
)

// runStore runs `karve store …` and returns what it prints and the error it ends with.
func runStore(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"store"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// sampleStore is the data directory of a server that was stopped: a Secret, ConfigMaps, and something of no known kind.
func sampleStore(t *testing.T) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	e, err := pebble.Open(filepath.Join(data, "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	revision := uint64(0)
	add := func(key string, value []byte) {
		revision++
		if err := e.Apply([]store.Mutation{{Key: key, Revision: revision, Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	object := func(kind string, obj runtime.Object) []byte {
		body, err := codec.Body(obj)
		if err != nil {
			t.Fatal(err)
		}
		return codec.Envelope(schema.GroupVersionKind{Version: "v1", Kind: kind}, body)
	}
	add("/registry/secrets/default/s", object("Secret", &corev1.Secret{Data: map[string][]byte{"password": []byte("hunter2")},
		ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"password":"aHVudGVyMg=="}}`}}}))
	for i := range 40 {
		name := fmt.Sprintf("c-%02d", i)
		add("/registry/configmaps/default/"+name, object("ConfigMap", &corev1.ConfigMap{Data: map[string]string{"key": strings.Repeat(fmt.Sprint(i*7919), 300)},
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}))
	}
	add("/registry/novelties/x", []byte("\x00\x01"))
	return data
}

func TestStoreCommands(t *testing.T) {
	data := sampleStore(t)
	tmp := t.TempDir()
	file, copied := filepath.Join(tmp, "file"), filepath.Join(tmp, "copy")
	tests := []struct {
		args   string
		has    []string
		hasNot []string
		err    string
	}{
		{"check DATA", []string{"42 records", "at revision 42"}, []string{"damaged"}, ""},
		{"check DATA/store -o json", []string{`"Records": 42`, `"Problems": null`}, nil, ""},
		{"dump DATA", []string{"KEY", "/registry/configmaps/default/c-07", "/registry/novelties/x", "42 records"}, []string{"hunter2", "aHVudGVyMg"}, ""},
		{"dump DATA secrets/ -o json", []string{`"key": "/registry/secrets/default/s"`, `"revision": 1`}, []string{"configmaps"}, ""},
		{"dump DATA configmaps/default/c-01", []string{"kind: ConfigMap", "name: c-01", `resourceVersion: "3"`, "key: 791979197919"}, nil, ""},
		{"dump DATA secrets/default/s", []string{"kind: Secret", "hidden"}, []string{"hunter2", "aHVudGVyMg"}, ""},
		{"dump DATA /registry/secrets/default/s -o json", []string{`"kind": "Secret"`, "hidden"}, []string{"hunter2", "aHVudGVyMg"}, ""},
		{"dump DATA secrets/default/s --show-secrets", []string{"password: aHVudGVyMg==", `{"data":`}, []string{"hidden"}, ""},
		{"dump DATA novelties/x", nil, nil, "of no kind that this karve knows"},
		{"dump DATA pods/", nil, nil, "nothing is stored below /registry/pods/: karve store dump"},
		{"dump DATA -o table", nil, nil, "give yaml or json"},
		{"export DATA FILE", []string{"42 records at revision 42", "holds Secrets"}, nil, ""},
		{"export DATA FILE", nil, nil, "file exists"},
		{"import COPY FILE", []string{"42 records", "revision 42"}, nil, ""},
		{"import COPY FILE", nil, nil, "not empty: give a new directory"},
		{"check COPY", []string{"42 records", "at revision 42"}, nil, ""},
		{"compact DATA", []string{"before", "after"}, nil, ""},
		{"check DATA", []string{"42 records", "at revision 42"}, nil, ""},
		{"check DATA/missing", nil, nil, "there is no directory"},
		{"check /proc", nil, nil, "holds no store"},
		{"import COPY2 /dev/null", nil, nil, "no file of `karve store export`"},
	}
	for _, test := range tests {
		args := strings.NewReplacer("DATA", data, "FILE", file, "COPY", copied).Replace(test.args)
		out, err := runStore(t, strings.Fields(args)...)
		if test.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.args, err, test.err)
		}
		for _, s := range test.has {
			if !strings.Contains(out, s) {
				t.Errorf("%s does not say %q:\n%.2000s", test.args, s, out)
			}
		}
		for _, s := range test.hasNot {
			if strings.Contains(out, s) {
				t.Errorf("%s says %q:\n%.2000s", test.args, s, out)
			}
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the exported file has mode %v, %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(file); err != nil || os.WriteFile(file, b[:len(b)-1], 0o600) != nil {
		t.Fatal(err)
	}
	if _, err := runStore(t, "import", filepath.Join(tmp, "other"), file); err == nil || !strings.Contains(err.Error(), "copy it again") {
		t.Errorf("import of half a file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(tmp, "other")); err == nil {
		t.Error("half a file left a directory")
	}
}

// TestStoreInUse: every command leaves alone what a server has open, and says whose it is.
func TestStoreInUse(t *testing.T) {
	data := sampleStore(t)
	e, err := pebble.Open(filepath.Join(data, "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, command := range []string{"check", "dump", "compact", "export"} {
		args := []string{command, data}
		if command == "export" {
			args = append(args, filepath.Join(t.TempDir(), "file"))
		}
		_, err := runStore(t, args...)
		if want := fmt.Sprintf("in use by another karve (pid %d): stop it", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", command, err, want)
		}
	}
}

// TestStoreDamaged damages a table: check says what is wrong and what to do, and that does it.
func TestStoreDamaged(t *testing.T) {
	data := sampleStore(t)
	if _, err := runStore(t, "compact", data); err != nil { // all is in tables then
		t.Fatal(err)
	}
	tables, _ := filepath.Glob(filepath.Join(data, "store", "*.sst"))
	if len(tables) == 0 {
		t.Fatal("no table")
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	copy(b[len(b)/3:], "damaged!")
	if err := os.WriteFile(tables[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runStore(t, "check", data)
	if err == nil || !strings.Contains(err.Error(), "--salvage NEW-DIR") || !strings.Contains(out, "damaged: records after") {
		t.Fatalf("check: %v\n%s", err, out)
	}
	if _, err := runStore(t, "export", data, filepath.Join(t.TempDir(), "f")); err == nil || !strings.Contains(err.Error(), "karve store check") {
		t.Errorf("export: %v", err)
	}
	saved := filepath.Join(t.TempDir(), "saved")
	if out, err = runStore(t, "check", data, "--salvage", saved); err != nil || !strings.Contains(out, "records written to") || !strings.Contains(out, "note: table") {
		t.Fatalf("salvage: %v\n%s", err, out)
	}
	if out, err = runStore(t, "check", saved, "-o", "json"); err != nil {
		t.Fatalf("check what was saved: %v\n%s", err, out)
	}
	var r pebble.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Records < 20 || r.Records >= 42 || r.Revision <= 42 {
		t.Errorf("saved %+v, %v", r, err)
	}
	if _, err := runStore(t, "check", data, "--salvage", saved); err == nil || !strings.Contains(err.Error(), "give a new directory") {
		t.Errorf("salvage over what is there: %v", err)
	}
}
