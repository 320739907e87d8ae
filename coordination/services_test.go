package coordination

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// TestInstancesEndWithTheirContext reads a service however little of it a page has.
func TestInstancesEndWithTheirContext(t *testing.T) {
	l := newLog(t)
	v, err := l.View()
	must(t, err)
	defer v.Close()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := l.recipes().Instances(over, v, "s", "t", "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestServices(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	r := l.recipes()
	revision := func() uint64 { n, _ := l.store.Revisions(); return n }
	web := Instance{Service: "web", Name: "1", Registration: Registration{
		Address: "10.0.0.1", Port: 80, Tags: []string{"blue", "eu"}, Metadata: map[string]string{"zone": "a", "rack": "7"}, TTLSeconds: 2,
	}}
	first, created, err := r.Register(ctx, web)
	must(t, err)
	if !created || first.Lease == (kv.LeaseID{}) || !reflect.DeepEqual(first.Registration, web.Registration) || first.CreateRevision != revision() {
		t.Errorf("created %v, %+v", created, first)
	}
	// The same again is a renewal, and no change.
	at := revision()
	for range 5 {
		l.pass(1500 * time.Millisecond)
		again, created, err := r.Register(ctx, web)
		must(t, err)
		if created || again.Lease != first.Lease || again.ModRevision != at || revision() != at {
			t.Errorf("renewed: created %v, %+v at %d", created, again, revision())
		}
	}
	changed := web
	changed.Port = 81
	second, created, err := r.Register(ctx, changed)
	must(t, err)
	if created || second.CreateRevision != first.CreateRevision || second.ModRevision == first.ModRevision || second.Lease == first.Lease {
		t.Errorf("changed: created %v, %+v", created, second)
	}

	lease := l.grant(2 * time.Second)
	for i := range 3 {
		agent := Instance{Service: "db", Name: fmt.Sprint(i), Lease: lease, Registration: Registration{Tags: []string{fmt.Sprint("t", i%2)}}}
		for j := range 2 {
			got, created, err := r.Register(ctx, agent)
			must(t, err)
			if created != (j == 0) || got.Lease != lease {
				t.Errorf("%d: created %v, %+v", j, created, got)
			}
		}
	}
	v, err := l.View()
	must(t, err)
	defer v.Close()
	list := func(tag, after string, limit int) (names []string, more bool) {
		found, more, err := r.Instances(ctx, v, "db", tag, after, limit)
		must(t, err)
		for _, i := range found {
			names = append(names, i.Name)
		}
		return names, more
	}
	for _, c := range []struct {
		tag, after string
		limit      int
		want       string
	}{
		{"", "", 10, "[0 1 2] false"}, {"t0", "", 10, "[0 2] false"}, {"t0", "", 1, "[0] true"}, {"t0", "0", 1, "[2] false"},
		{"", "0", 1, "[1] true"}, {"", "9", 1, "[] false"}, {"t9", "", 1, "[] false"}, {"", "", 3, "[0 1 2] false"},
	} {
		names, more := list(c.tag, c.after, c.limit)
		if got := fmt.Sprint(names, more); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
	names, more, err := r.Services(ctx, v, "", 1)
	if fmt.Sprint(names, more, err) != "[db] true <nil>" {
		t.Errorf("services %v, more %v, %v", names, more, err)
	}
	names, more, err = r.Services(ctx, v, "db", 1)
	if fmt.Sprint(names, more, err) != "[web] false <nil>" {
		t.Errorf("services %v, more %v, %v", names, more, err)
	}

	// Only what is alive is listed; one lease holds all of an agent.
	l.pass(4 * time.Second)
	v2, err := l.View()
	must(t, err)
	defer v2.Close()
	if names, _, err := r.Services(ctx, v2, "", 10); len(names) > 0 || err != nil {
		t.Errorf("still there: %v, %v", names, err)
	}
	if _, _, err := r.Register(ctx, Instance{Service: "db", Name: "0", Lease: lease}); !errors.Is(err, &kv.Error{Code: kv.LeaseNotFound}) {
		t.Errorf("with a lease that is over: %v", err)
	}
	if i, created, err := r.Register(ctx, web); err != nil || !created || i.Lease == first.Lease {
		t.Errorf("back again: %+v, created %v, %v", i, created, err)
	}
	if deleted, _, err := r.Deregister(ctx, "web", "1"); err != nil || !deleted {
		t.Errorf("deleted %v, %v", deleted, err)
	}
	if deleted, _, err := r.Deregister(ctx, "web", "1"); err != nil || deleted {
		t.Errorf("again: deleted %v, %v", deleted, err)
	}
}
