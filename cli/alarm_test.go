package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	memberTwo = "01KB0000000000000000000002"
	// alarmsNow are those of a cluster whose second member is full and which has no
	// majority of one mind.
	alarmsNow  = `"alarms":[{"member":"` + memberTwo + `","type":"no-space"},{"member":"","type":"corrupt"}]`
	membersNow = `"members":[{"id":"01KB0000000000000000000001","name":"n1"},{"id":"` + memberTwo + `","name":"n2"}]`
)

// alarmed is a node of that cluster. It notes what is asked to be cleared.
func alarmed(t *testing.T) (url string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				*asked = append(*asked, r.URL.RawQuery)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", answer(`{}`))
	mux.Handle("GET /v1/status", answer(`{`+membersNow+`,`+alarmsNow+`}`))
	mux.Handle("GET /v1/alarms", answer(`{`+alarmsNow+`}`))
	mux.Handle("DELETE /v1/alarms", answer(`{"revision":9,"cleared":1}`))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL, asked
}

// prints runs a command line and returns what it printed.
func prints(t *testing.T, args ...string) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	root := (&app{stdin: os.Stdin, stdout: out, stderr: out}).root()
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("cairn %q: %v", args, err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Alarms show their members by name, and may have none.
func TestAlarmsAreShown(t *testing.T) {
	url, _ := alarmed(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"alarm", "list"}, "TYPE      MEMBER                      NAME\n" +
			"no-space  " + memberTwo + "  n2\n" +
			"corrupt                               \n"},
		{[]string{"alarm", "list", "-o", "raw"}, "no-space\t" + memberTwo + "\ncorrupt\t\n"},
		{[]string{"alarm", "clear", "--all"}, "cleared 1 alarm\n"},
	} {
		if got := prints(t, append(c.args, "--endpoint", url)...); got != c.want {
			t.Errorf("cairn %q prints\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	const want = "alarm: no-space on n2\nalarm: corrupt\n"
	if got := prints(t, "status", "--endpoint", url); len(got) < len(want) || got[len(got)-len(want):] != want {
		t.Errorf("cairn status prints\n%s\nwant at its end\n%s", got, want)
	}
}

// What is to be cleared is asked for as it was named.
func TestAlarmsAreCleared(t *testing.T) {
	url, asked := alarmed(t)
	for _, args := range [][]string{
		{"--all"}, {"corrupt"}, {"--member", "n2"}, {"--member", memberTwo}, {"no-space", "--member", "n2"},
	} {
		prints(t, append([]string{"alarm", "clear", "--endpoint", url}, args...)...)
	}
	want := []string{"", "type=corrupt", "member=" + memberTwo, "member=" + memberTwo, "member=" + memberTwo + "&type=no-space"}
	if !slices.Equal(*asked, want) {
		t.Errorf("asked to clear %q, want %q", *asked, want)
	}
}
