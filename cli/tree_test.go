package cli

import (
	"strings"
	"testing"
)

func TestTree(t *testing.T) {
	for _, test := range []struct {
		name, keys string
		depth      int
		want       string
	}{
		{"flat", "a b", 0, "├── a\n└── b\n"},
		{"nested", "a/b/c a/d", 0, "└── a/\n    ├── b/\n    │   └── c\n    └── d\n"},
		{"a key and a directory", "a a/b", 0, "├── a\n└── a/\n    └── b\n"},
		{"a key between them", "a a-b a/b", 0, "├── a\n├── a-b\n└── a/\n    └── b\n"},
		{"empty names", "/a a/ a//b", 0, "├── /\n│   └── a\n└── a/\n    ├── \"\"\n    └── /\n        └── b\n"},
		{"one level", "a/b/c a/d e", 1, "├── a/ (2 keys)\n└── e\n"},
		{"two levels", "a/b/c a/b/d a/e", 2, "└── a/\n    ├── b/ (2 keys)\n    └── e\n"},
	} {
		root := &branch{}
		for _, key := range strings.Fields(test.keys) {
			root.add(key, "/", test.depth)
		}
		var got strings.Builder
		root.draw(&got, "")
		if got.String() != test.want {
			t.Errorf("%s: drew\n%s\nwant\n%s", test.name, got.String(), test.want)
		}
	}
}
