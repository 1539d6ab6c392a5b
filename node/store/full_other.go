//go:build !unix && !windows

package store

import "errors"

// errQuota stands for an error that this system does not have.
var errQuota = errors.New("no such error")
