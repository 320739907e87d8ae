package httpapi

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// yamlToJSON turns the contract into JSON, members in the order of the document.
func yamlToJSON(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("couldn't read the contract: %w", err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, fmt.Errorf("the contract is not one document")
	}
	return appendNode(nil, root.Content[0])
}

func appendNode(b []byte, n *yaml.Node) ([]byte, error) {
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		b = append(b, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, n.Content[i].Value), ':')
			if b, err = appendNode(b, n.Content[i+1]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, element := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendNode(b, element); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case yaml.AliasNode:
		return appendNode(b, n.Alias)
	}
	if n.ShortTag() == "!!timestamp" {
		return appendQuoted(b, n.Value), nil
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, fmt.Errorf("line %d of the contract: %w", n.Line, err)
	}
	scalar, err := json.Marshal(value)
	return append(b, scalar...), err
}
