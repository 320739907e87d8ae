package cli

import "testing"

func TestDidYouMean(t *testing.T) {
	known := map[string]string{"listen": "", "data-dir": "", "name": ""}
	for name, want := range map[string]string{
		"lissen":   "; did you mean listen?",
		"data_dir": "; did you mean data-dir?",
		"nam":      "; did you mean name?",
		"quorum":   "",
	} {
		if got := didYouMean(name, known); got != want {
			t.Errorf("didYouMean(%q) = %q, want %q", name, got, want)
		}
	}
}

// Variables that an orchestrator sets are told apart from misspelt settings.
func TestInjected(t *testing.T) {
	for name, want := range map[string]bool{
		"CAIRN_SERVICE_HOST":       true,
		"CAIRN_SERVICE_PORT":       true,
		"CAIRN_SERVICE_PORT_HTTP":  true,
		"CAIRN_PORT":               true,
		"CAIRN_PORT_7480_TCP":      true,
		"CAIRN_PORT_7480_TCP_ADDR": true,
		"CAIRN_PEERS_SERVICE_HOST": true,
		"CAIRN_LISTE":              false,
		"CAIRN_QUOTAS":             false,
		"CAIRN_SERVICE":            false,
	} {
		if got := injected.MatchString(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
