package client

import "time"

// SetSilence sets how long a watch waits for a byte.
func (c *Client) SetSilence(d time.Duration) { c.silence = d }
