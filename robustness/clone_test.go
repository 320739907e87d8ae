package robustness

import (
	"fmt"
	"testing"

	"github.com/cairnkv/cairn/internal/testkit"
)

func TestClone(t *testing.T) {
	beside(t)
	ports := testkit.FreePorts(t, 2)
	clone := Clone{Address: fmt.Sprintf("127.0.0.1:%d", ports[0]), Peer: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	Judge(t, Scenario{Layout: Layout{Size: 3}, Rounds: rounds(1, 20), Fault: clone.Run, Seed: Seed(t), Alive: true}.Run(t))
}
