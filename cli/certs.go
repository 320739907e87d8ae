package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairnkv/cairn/internal/authority"
)

const certsHelp = `Make the certificates with which members show each other who they are.

In the directory are an authority of the cluster's own (ca.crt, ca.key), made at
the first call, and for each member that is named a certificate and a key
(n1.crt, n1.key), good for the hosts behind its name: those by which the other
members reach it. A member that has a certificate already gets a new one, with
the key that it has; a running node takes it over by itself.

Give each member ca.crt and its own two files. Keep ca.key away from them: whoever
has it can become a member.`

const certsExample = `  # Three members, the third with a name as well
  cairn certs --dir pki n1=10.0.0.1 n2=10.0.0.2 n3=10.0.0.3,n3.internal

  # And what the first of them is started with
  cairn serve --peer-ca pki/ca.crt --peer-cert pki/n1.crt --peer-key pki/n1.key …`

func (a *app) certs() *cobra.Command {
	var dir string
	var days int
	cmd := &cobra.Command{
		Use:     "certs name=host[,host…]…",
		Short:   "Make certificates for peers",
		Long:    certsHelp,
		Example: certsExample,
		Args:    arguments(1, 1000),
	}
	cmd.Flags().StringVar(&dir, "dir", "pki", "`directory` of the authority and the certificates")
	cmd.Flags().IntVar(&days, "days", 825, "`number` of days that the certificates are good for")
	_ = cmd.MarkFlagDirname("dir")
	hideGlobalFlags(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if days < 1 || days > 7300 {
			return usagef("days must be from 1 to 7300")
		}
		hosts := map[string][]string{}
		for _, arg := range args {
			name, list, ok := strings.Cut(arg, "=")
			if !ok || name == "" || list == "" || hosts[name] != nil {
				return usagef("%q is not a member and its hosts, n1=10.0.0.1", arg)
			}
			hosts[name] = strings.Split(list, ",")
		}
		signer, made, err := authority.Open(dir)
		if err != nil {
			return err
		}
		if made {
			fmt.Fprintf(a.stderr, "cairn: made an authority in %s; keep ca.key away from the members\n", dir)
		}
		for _, arg := range args {
			name, _, _ := strings.Cut(arg, "=")
			cert, key, err := signer.Issue(name, hosts[name], time.Duration(days)*24*time.Hour)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(a.stdout, "%s: --peer-ca %s --peer-cert %s --peer-key %s\n", name, signer.File(), cert, key); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
