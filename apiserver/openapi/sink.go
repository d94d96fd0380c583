package openapi

import (
	"encoding/json"
	"io"
)

// sink takes a document in parts, each of them whole.
type sink interface {
	// begin takes what comes before the parts: the version, the title, how to authenticate.
	begin(head object) error
	// part takes one named member of a section: "paths", "parameters", "schemas".
	part(section, name string, value json.RawMessage) error
	end() error
}

// jsonSink writes a document as JSON, sections in the order they come.
type jsonSink struct {
	w       io.Writer
	v2      bool
	head    object
	section string
	err     error
}

func (s *jsonSink) print(parts ...string) {
	for _, p := range parts {
		if s.err == nil {
			_, s.err = io.WriteString(s.w, p)
		}
	}
}

func (s *jsonSink) begin(head object) error {
	s.head = head
	s.print("{")
	first := true
	for _, key := range sortedKeys(head) {
		if key == "components" {
			continue
		}
		value, err := encode(head[key])
		if err != nil {
			return err
		}
		if !first {
			s.print(",")
		}
		first = false
		s.print(quote(key), ":", string(value))
	}
	return s.err
}

// open are what a section begins with; the schemas of version 3 share an object with the ways to authenticate.
func (s *jsonSink) open(section string) string {
	if section != "schemas" {
		return quote(section) + ":{"
	}
	if s.v2 {
		return `"definitions":{`
	}
	return `"components":{"schemas":{`
}

func (s *jsonSink) part(section, name string, value json.RawMessage) error {
	if section != s.section {
		if s.section != "" {
			s.print("}")
		}
		s.section = section
		s.print(",", s.open(section))
	} else {
		s.print(",")
	}
	s.print(quote(name), ":")
	if s.err == nil {
		_, s.err = s.w.Write(value)
	}
	return s.err
}

func (s *jsonSink) end() error {
	if s.section != "" {
		s.print("}")
	}
	if c, ok := s.head["components"].(object); ok {
		ways, err := encode(c["securitySchemes"])
		if err != nil {
			return err
		}
		if s.section == "schemas" {
			s.print(`,"securitySchemes":`, string(ways), "}")
		} else {
			s.print(`,"components":{"securitySchemes":`, string(ways), "}")
		}
	}
	s.print("}")
	return s.err
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always encodes
	return string(b)
}
