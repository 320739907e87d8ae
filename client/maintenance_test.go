package client_test

import (
	"context"
	"slices"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

// Alarms are listed, and cleared by member and by type. A clearing is sent again
// only under an Idempotency-Key.
func TestAlarms(t *testing.T) {
	const cleared = `{"revision":7,"cleared":1}`
	s := newScript(t,
		answers(`{"alarms":[{"member":"01KB0000000000000000000002","type":"no-space"},{"member":"","type":"corrupt"}]}`),
		answers(cleared), answers(cleared), breaks, breaks, answers(cleared))
	c, ctx := newClient(t, s.url), context.Background()

	alarms, err := c.Alarms(ctx, client.Stale())
	want := []api.Alarm{{Member: "01KB0000000000000000000002", Type: api.AlarmNoSpace}, {Type: api.AlarmCorrupt}}
	if err != nil || !slices.Equal(alarms.Alarms, want) {
		t.Errorf("the alarms are %v, %v, want %v", alarms, err, want)
	}
	result, err := c.ClearAlarms(ctx, want[0])
	if err != nil || result.Cleared != 1 || result.Revision != 7 {
		t.Errorf("clearing one: %v, %v", result, err)
	}
	must(c.ClearAlarms(ctx, api.Alarm{}))
	_, err = c.ClearAlarms(ctx, api.Alarm{})
	wantError(t, err, client.ErrOutcomeUnknown)
	must(c.ClearAlarms(ctx, api.Alarm{}, client.Idempotent()))

	var got []string
	for _, r := range s.requests() {
		got = append(got, r.method+" "+r.target)
	}
	if want := []string{
		"GET /v1/alarms?consistency=stale",
		"DELETE /v1/alarms?member=01KB0000000000000000000002&type=no-space",
		"DELETE /v1/alarms", "DELETE /v1/alarms", "DELETE /v1/alarms", "DELETE /v1/alarms",
	}; !slices.Equal(got, want) {
		t.Errorf("got the requests %q, want %q", got, want)
	}
}
