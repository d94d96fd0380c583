package resource

import (
	"context"
	"strconv"
)

// maxBefore is how many events of a resource are looked at for the one that changed an object.
const maxBefore = 4096

// Before returns the object of a call as it was at a revision, nil when the store's log does not tell any more. It is shared:
// read only. It does not wait.
func (d *Door) Before(ctx context.Context, c *Call, resourceVersion string) Object {
	revision, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil || revision == 0 || revision >= d.store.Revision() {
		return nil
	}
	key := c.key()
	cursor, err := d.store.Watch(Topic(key), revision)
	if err != nil {
		return nil
	}
	defer cursor.Close()
	ended, end := context.WithCancel(ctx)
	end() // what is there is read; what is yet to come is not waited for
	for seen := 0; seen < maxBefore; {
		events, _, err := cursor.Next(ended)
		if err != nil {
			return nil
		}
		for _, e := range events {
			if e.Record.Key == key {
				if e.Prev == nil {
					return nil
				}
				return ObjectOf(e.Prev)
			}
		}
		seen += len(events)
	}
	return nil
}
