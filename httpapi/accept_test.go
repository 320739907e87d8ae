package httpapi

import "testing"

// Weights are taken as clients write them, also those that leave out a digit, or have one
// too many.
func TestWeights(t *testing.T) {
	for value, want := range map[string]int{
		"1": 1000, "0": 0, "0.5": 500, "0.123": 123, ".2": 200, "1.": 1000, "0.": 0,
		"0.0000": 0, "0.3333": 333, "0.33333333333333333333333": 333, "": 1000, "x": 1000, "7": 1000, "-1": 1000, "0.x": 1000,
	} {
		if got := parseQuality("; q=" + value); got != want {
			t.Errorf("q=%s: got %d, want %d", value, got, want)
		}
	}
	java := []string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}
	if got := negotiate(java, "application/json", "text/event-stream"); got != wantsFirst {
		t.Errorf("got %v", got)
	}
}
