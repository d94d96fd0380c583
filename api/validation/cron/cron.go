// Package cron says why a schedule of a CronJob is none. Validation asks it; it computes no times.
package cron

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// bounds is one of the five fields of a cron schedule.
type bounds struct {
	min, max uint
	names    map[string]uint
}

var cronFields = []bounds{
	{0, 59, nil}, {0, 23, nil}, {1, 31, nil},
	{1, 12, named(1, "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")},
	{0, 6, named(0, "sun", "mon", "tue", "wed", "thu", "fri", "sat")},
}

func named(first uint, names ...string) map[string]uint {
	m := map[string]uint{}
	for i, n := range names {
		m[n] = first + uint(i)
	}
	return m
}

// Check says why a schedule is none.
func Check(spec string) error {
	if zone, ok := strings.CutPrefix(spec, "TZ="); ok || strings.HasPrefix(spec, "CRON_TZ=") {
		if !ok {
			zone = strings.TrimPrefix(spec, "CRON_TZ=")
		}
		name, rest, found := strings.Cut(zone, " ")
		if !found {
			return fmt.Errorf("provided bad location %s", name)
		}
		if _, err := time.LoadLocation(name); err != nil {
			return fmt.Errorf("provided bad location %s: %w", name, err)
		}
		spec = strings.TrimSpace(rest)
	}
	if strings.HasPrefix(spec, "@") {
		return descriptor(spec)
	}
	fields := strings.Fields(spec)
	if len(fields) != len(cronFields) {
		return fmt.Errorf("expected exactly %d fields, found %d: %s", len(cronFields), len(fields), fields)
	}
	for i, f := range fields {
		for _, expr := range strings.FieldsFunc(f, func(r rune) bool { return r == ',' }) {
			if err := cronRange(expr, cronFields[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func descriptor(spec string) error {
	switch spec {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly":
		return nil
	}
	if d, ok := strings.CutPrefix(spec, "@every "); ok {
		if _, err := time.ParseDuration(d); err != nil {
			return fmt.Errorf("failed to parse duration %s: %w", spec, err)
		}
		return nil
	}
	return fmt.Errorf("unrecognized descriptor: %s", spec)
}

// cronRange checks one of: number, number-number, either with /step; * or ? for all.
func cronRange(expr string, b bounds) error {
	steps := strings.Split(expr, "/")
	ends := strings.Split(steps[0], "-")
	start, end := b.min, b.max
	if ends[0] != "*" && ends[0] != "?" {
		var err error
		if start, err = cronNumber(ends[0], b.names); err != nil {
			return err
		}
		switch len(ends) {
		case 1:
			end = start
		case 2:
			if end, err = cronNumber(ends[1], b.names); err != nil {
				return err
			}
		default:
			return fmt.Errorf("too many hyphens: %s", expr)
		}
	}
	step := uint(1)
	switch len(steps) {
	case 1:
	case 2:
		n, err := plainNumber(steps[1])
		if err != nil {
			return err
		}
		step = n
		if len(ends) == 1 {
			end = b.max
		}
	default:
		return fmt.Errorf("too many slashes: %s", expr)
	}
	switch {
	case start < b.min:
		return fmt.Errorf("beginning of range (%d) below minimum (%d): %s", start, b.min, expr)
	case end > b.max:
		return fmt.Errorf("end of range (%d) above maximum (%d): %s", end, b.max, expr)
	case start > end:
		return fmt.Errorf("beginning of range (%d) beyond end of range (%d): %s", start, end, expr)
	case step == 0:
		return fmt.Errorf("step of range should be a positive number: %s", expr)
	}
	return nil
}

func cronNumber(s string, names map[string]uint) (uint, error) {
	if n, ok := names[strings.ToLower(s)]; ok {
		return n, nil
	}
	return plainNumber(s)
}

func plainNumber(s string) (uint, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("failed to parse int from %s: %w", s, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("negative number (%d) not allowed: %s", n, s)
	}
	return uint(n), nil
}
