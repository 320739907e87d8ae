package cli

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/client"
)

func entry(key, value string, revision uint64) api.Entry {
	return api.Entry{Key: []byte(key), Value: []byte(value), ModRevision: revision, CreateRevision: revision, Version: 1}
}

// overtaken is a watch with the present state that a compaction has overtaken.
func overtaken() []client.WatchMessage {
	return []client.WatchMessage{
		{Kind: client.WatchReset, Revision: 5},
		{Kind: client.WatchInitial, Revision: 5, Entries: []api.WatchedEntry{{Entry: entry("a", "1", 3)}, {Entry: entry("b\x00c", "2", 4)}}},
		{Kind: client.WatchSynced, Revision: 5},
		{Kind: client.WatchChange, Revision: 6, Events: []api.WatchedChange{
			{Change: api.Change{Type: api.TypePut, Entry: entry("a", "3", 6)}},
			{Change: api.Change{Type: api.TypeDelete, Reason: "expired", Entry: api.Entry{Key: []byte("d"), ModRevision: 6}}},
		}},
		{Kind: client.WatchReset, Revision: 9},
		{Kind: client.WatchInitial, Revision: 9, Entries: []api.WatchedEntry{{Entry: entry("a", "4", 8)}}},
		{Kind: client.WatchSynced, Revision: 9},
		{Kind: client.WatchBookmark, Revision: 12},
	}
}

func putAll(t *testing.T, to watchSink) {
	t.Helper()
	for _, m := range overtaken() {
		if err := to.put(&m); err != nil {
			t.Fatal(err)
		}
	}
}

// A command learns of each event, and that what it knows is to be forgotten.
func TestWatchCommand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	t.Setenv("CAIRN_WATCH_NAME", "of another watch")
	to := &watchCommand{a: &app{stdout: out, stderr: out, endpoints: []string{"http://one", "http://two"}}, ctx: ctx, args: []string{"sh", "-c",
		`echo "$CAIRN_WATCH_TYPE ${CAIRN_WATCH_KEY-unset} $CAIRN_WATCH_KEY_BASE64 $CAIRN_WATCH_REVISION $CAIRN_WATCH_REASON ${CAIRN_WATCH_INITIAL-} $(cat) $CAIRN_ENDPOINT${CAIRN_WATCH_NAME-}"`}}
	putAll(t, to)
	cancel()
	if err := to.put(&overtaken()[3]); err == nil {
		t.Error("a command is run although the watch is to end")
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	const nodes = " http://one,http://two\n"
	want := "put a YQ== 3  true 1" + nodes +
		"put unset YgBj 4  true 2" + nodes +
		"put a YQ== 6   3" + nodes +
		"delete d ZA== 6 expired  " + nodes +
		"reset unset  9   " + nodes +
		"put a YQ== 8  true 4" + nodes
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What was handed out of a present state that broke off is to be forgotten as well.
func TestWatchOfAStateThatBrokeOff(t *testing.T) {
	messages := []client.WatchMessage{
		{Kind: client.WatchReset, Revision: 5},
		{Kind: client.WatchInitial, Revision: 5, Entries: []api.WatchedEntry{{Entry: entry("gone", "1", 3)}}},
		{Kind: client.WatchReset, Revision: 7},
		{Kind: client.WatchInitial, Revision: 7, Entries: []api.WatchedEntry{{Entry: entry("a", "2", 4)}}},
		{Kind: client.WatchSynced, Revision: 7},
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var table strings.Builder
	for _, to := range []watchSink{
		&watchTable{out: bufio.NewWriter(&table)},
		&watchCommand{a: &app{stdout: out, stderr: out}, ctx: t.Context(), args: []string{"sh", "-c", `echo "$CAIRN_WATCH_TYPE ${CAIRN_WATCH_KEY-}"`}},
	} {
		for _, m := range messages {
			if err := to.put(&m); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := os.ReadFile(out.Name())
	if want := "put gone\nreset \nput a\n"; err != nil || string(got) != want {
		t.Errorf("commands: %q, %v, want %q", got, err, want)
	}
	if !strings.Contains(table.String(), "reset") {
		t.Errorf("the table has no reset:\n%s", table.String())
	}
}

// A command that is interrupted has not done its event, with which another watch can
// begin.
func TestWatchCommandIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := &watchCommand{a: &app{stdout: os.Stderr, stderr: os.Stderr}, ctx: ctx, args: []string{"false"}}
	m := overtaken()[3]
	if err := to.put(&m); err != nil {
		t.Errorf("a command that fails ends the watch: %v", err)
	}
	to.args = []string{"sh", "-c", "read -r line; exit 1"}
	cancelled := make(chan struct{})
	go func() { cancel(); close(cancelled) }()
	<-cancelled
	if err := to.put(&m); err == nil {
		t.Error("an event counts as done whose command was interrupted")
	}
}

func TestWatchForms(t *testing.T) {
	var table, values, lines strings.Builder
	putAll(t, &watchTable{out: bufio.NewWriter(&table)})
	putAll(t, &watchValues{out: bufio.NewWriter(&values)})
	putAll(t, watchLines{&lines})

	var changes []string
	for line := range strings.Lines(table.String()) {
		changes = append(changes, strings.Join(strings.Fields(line), " "))
	}
	if got, want := strings.Join(changes, "\n"), `REVISION TIME CHANGE KEY VALUE
3 present a 1
4 present "b\x00c" 2
6 put a 3
6 expired d
reset what is not in the following state is gone
8 present a 4`; got != want {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
	if got := values.String(); got != "1\n2\n3\n4\n" {
		t.Errorf("the values are %q", got)
	}
	for _, want := range []string{`{"event":"reset","revision":9}`, `{"event":"bookmark","revision":12}`, `"reason":"expired"}]}`} {
		if !strings.Contains(lines.String(), want+"\n") {
			t.Errorf("the lines lack %s:\n%s", want, lines.String())
		}
	}
}
