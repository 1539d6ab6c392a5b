//go:build unix

package store

import "syscall"

// errQuota is the system's error for a user whose share of the disk is used up.
const errQuota = syscall.EDQUOT
