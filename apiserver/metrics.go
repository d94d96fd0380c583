package apiserver

import (
	"compress/gzip"
	"net/http"
	"runtime"

	"karve/api"
	"karve/apiserver/metrics"
	"karve/apiserver/resource"
	"karve/apiserver/rest"
)

// serveMetrics answers with what the server knows of itself in the text exposition format.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	p := metrics.NewPage()
	s.requests.WriteTo(p)
	s.admitted.WriteTo(p)
	s.writeStorage(p)
	s.fair.WriteMetrics(p)
	p.Family("kubernetes_build_info", "gauge", metrics.Beta,
		"Always 1: the version of the API and of the program, with what it was built by and runs on.")
	p.Sample(1, "build_date", "1970-01-01T00:00:00Z", "compiler", runtime.Compiler, "git_commit", "", "git_tree_state", "clean", "git_version", api.Version(s.opts.Version),
		"go_version", runtime.Version(), "major", "1", "minor", "36", "platform", runtime.GOOS+"/"+runtime.GOARCH)
	metrics.WriteProcess(p)
	p.Registered()
	writePage(w, r, p)
}

// serveHealthMetrics answers with how the health checks went.
func (s *Server) serveHealthMetrics(w http.ResponseWriter, r *http.Request) {
	p := metrics.NewPage()
	s.health.WriteTo(p)
	writePage(w, r, p)
}

func writePage(w http.ResponseWriter, r *http.Request, p *metrics.Page) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if !rest.AcceptsGzip(r) {
		_, _ = w.Write(p.Bytes())
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	_, _ = z.Write(p.Bytes())
	_ = z.Close()
}

// writeStorage adds what is stored: objects, changes and bytes on the disk.
func (s *Server) writeStorage(p *metrics.Page) {
	view := s.store.View()
	each := func(fn func(row *api.Row, prefix string)) {
		for _, row := range api.Rows() {
			if row.Prefix != "" && row.Stored.Empty() {
				fn(row, resource.Root+row.Prefix+"/")
			}
		}
	}
	p.Family("apiserver_storage_objects", "gauge", metrics.Stable,
		"Objects that are stored, by resource. Deprecated: apiserver_resource_objects has the group apart.")
	each(func(row *api.Row, prefix string) {
		p.Sample(float64(view.Count(prefix)), "resource", row.GR().String())
	})
	p.Family("apiserver_resource_objects", "gauge", metrics.Alpha,
		"Objects that are stored, by resource.")
	each(func(row *api.Row, prefix string) {
		p.Sample(float64(view.Count(prefix)), "group", row.Group, "resource", row.Resource)
	})
	p.Family("apiserver_storage_events_received_total", "counter", metrics.Beta, "Changes of stored objects since the start, by resource.")
	each(func(row *api.Row, prefix string) {
		p.Sample(float64(s.store.Events(prefix)), "group", row.Group, "resource", row.Resource)
	})
	if e, ok := s.opts.Engine.(interface{ Size() int64 }); ok {
		p.Family("apiserver_storage_size_bytes", "gauge", metrics.Stable, "Bytes that the store takes on the disk.")
		p.Sample(float64(e.Size()), "storage_cluster_id", "etcd-0")
	}
	p.Family("karve_store_revision", "counter", metrics.Alpha, "The revision of the last change that is stored.")
	p.Sample(float64(s.store.Revision()))
}
