// Command cairn is the server, the cluster and the command line of Cairn in one
// binary.
package main

import (
	_ "embed"
	"os"
	"runtime/debug"

	"github.com/cairnkv/cairn/cli"
)

//go:embed openapi.yaml
var openAPI []byte

// version is set in a release, by -ldflags "-X main.version=1.2.3".
var version string

func main() { os.Exit(cli.Main(cli.Build{Version: buildVersion(), OpenAPI: openAPI})) }

// buildVersion is the version of the release, or what Go knows of the build.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.0.0-dev"
}
