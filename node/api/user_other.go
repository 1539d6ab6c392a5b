//go:build !linux

package api

import "net"

// foreignUser cannot be told here: other users of the machine can use the websocket.
func foreignUser(net.Conn) bool { return false }
