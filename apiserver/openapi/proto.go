package openapi

import (
	"encoding/json"
	"fmt"
	"io"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
)

// protoSink writes a document in its protobuf form. Protobuf messages that follow each other merge, so that each part is
// converted on its own as a document with one member: the library's parser holds all it is given as trees of YAML nodes.
type protoSink struct {
	w  io.Writer
	v2 bool
}

func (s *protoSink) begin(head object) error {
	h := object{"paths": object{}}
	for k, v := range head {
		h[k] = v
	}
	return s.write(h, true)
}

func (s *protoSink) part(section, name string, value json.RawMessage) error {
	doc := object{"info": object{"title": "", "version": ""}, "paths": object{}}
	member := object{name: value}
	switch {
	case s.v2 && section == "schemas":
		doc["definitions"] = member
	case section == "schemas":
		doc["components"] = object{"schemas": member}
	default:
		doc[section] = member
	}
	if s.v2 {
		doc["swagger"] = "2.0"
	} else {
		doc["openapi"] = "3.0.0"
	}
	if err := s.write(doc, false); err != nil {
		return fmt.Errorf("convert %s %s: %w", section, name, err)
	}
	return nil
}

func (s *protoSink) end() error { return nil }

// write converts doc; of a part only the member it brings is kept.
func (s *protoSink) write(doc object, whole bool) error {
	text, err := encode(doc)
	if err != nil {
		return err
	}
	var m proto.Message
	if s.v2 {
		d, err := openapi_v2.ParseDocument(text)
		if err != nil {
			return err
		}
		if !whole {
			d.Swagger, d.Info = "", nil
		}
		m = d
	} else {
		d, err := openapi_v3.ParseDocument(text)
		if err != nil {
			return err
		}
		if !whole {
			d.Openapi, d.Info = "", nil
		}
		m = d
	}
	out, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.w.Write(out)
	return err
}
