package api

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// What the server reads, in the words of the contract.
func TestWatchRequest(t *testing.T) {
	wait := 0.0
	for _, c := range []struct {
		request WatchRequest
		want    string
	}{
		{WatchRequest{}, `{}`},
		{WatchRequest{FromRevision: 813, Prev: true}, `{"from_revision":813,"prev":true}`},
		{WatchRequest{Earliest: true, Type: TypePut}, `{"from_revision":"earliest","type":"put"}`},
		{WatchRequest{Initial: true, KeysOnly: true, LastEventID: "812"}, `{"last_event_id":"812","initial":true,"keys_only":true}`},
		{WatchRequest{BookmarkSeconds: 1.5, WaitSeconds: &wait}, `{"bookmark_seconds":1.5,"wait_seconds":0}`},
		{WatchRequest{Watches: []Watched{
			{Range: Range{Prefix: []byte("cfg/")}, Name: "config"},
			{Range: Range{Key: []byte{0xff}}},
			{Range: Range{Prefix: []byte{}}},
			{Range: Range{Start: []byte("m"), End: []byte("p")}},
		}}, `{"watches":[{"prefix":"cfg/","name":"config"},{"key_base64":"/w=="},{"prefix":""},{"start":"m","end":"p"}]}`},
	} {
		if got, err := json.Marshal(c.request); err != nil || string(got) != c.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
		}
	}
}

// What the server writes is read, and written the same again.
func TestWatchedRoundTrip(t *testing.T) {
	const change = `{"revision":9,"events":[` +
		`{"type":"put","key":"a","value":"x","content_type":"text/plain","create_revision":7,"mod_revision":9,"version":2,"lease":"01J","modified_at":"2026-11-22T05:00:00.000Z",` +
		`"prev":{"key":"a","value":"","create_revision":7,"mod_revision":7,"version":1,"modified_at":"2026-11-22T04:00:00.000Z"},"names":["one","two"]},` +
		`{"type":"delete","key_base64":"/w==","mod_revision":9,"modified_at":"2026-11-22T05:00:00.000Z","reason":"expired"}],"more":true}`
	at := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
	want := WatchChange{Revision: 9, More: true, Events: []WatchedChange{
		{
			Change: Change{Type: TypePut, Entry: Entry{
				Key: []byte("a"), Value: []byte("x"), ContentType: "text/plain", CreateRevision: 7, ModRevision: 9, Version: 2, Lease: "01J", ModifiedAt: at,
			}},
			Prev:  &Entry{Key: []byte("a"), Value: []byte{}, CreateRevision: 7, ModRevision: 7, Version: 1, ModifiedAt: at.Add(-time.Hour)},
			Names: []string{"one", "two"},
		},
		{Change: Change{Type: TypeDelete, Reason: "expired", Entry: Entry{Key: []byte{0xff}, ModRevision: 9, ModifiedAt: at}}},
	}}
	roundTrip(t, change, want)

	roundTrip(t, `{"revision":9,"entries":[{"key":"a","value_base64":"AP8=","create_revision":7,"mod_revision":9,"version":2,"modified_at":"2026-11-22T05:00:00.000Z","names":["one"]}]}`,
		WatchInitial{Revision: 9, Entries: []WatchedEntry{{
			Entry: Entry{Key: []byte("a"), Value: []byte{0, 0xff}, CreateRevision: 7, ModRevision: 9, Version: 2, ModifiedAt: at},
			Names: []string{"one"},
		}}})
	roundTrip(t, `{"event":"compacted","resume_from":5,"compact_revision":5,"current_revision":9}`,
		WatchLine{Event: EventCompacted, ResumeFrom: 5, CompactRevision: 5, CurrentRevision: 9})
	roundTrip(t, `{"changes":[],"revision":9}`, WatchBatch{Changes: []WatchChange{}, Revision: 9})
}

func roundTrip[T any](t *testing.T, text string, want T) {
	t.Helper()
	var got T
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if again, err := json.Marshal(got); err != nil || string(again) != text {
		t.Errorf("got  %s, %v\nwant %s", again, err, text)
	}
}
