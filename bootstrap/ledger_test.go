package bootstrap

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// testLedger is a ledger in a directory, with a clock that the test moves.
func testLedger(t *testing.T) (l *Ledger, pass func(time.Duration), again func() *Ledger) {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	file := filepath.Join(t.TempDir(), "invites.json")
	again = func() *Ledger {
		l, err := OpenLedger(file, func() time.Time { return now }, nil)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	return again(), func(d time.Duration) { now = now.Add(d) }, again
}

func expect(t *testing.T, l *Ledger, what string, token Token, ok, guest bool) {
	t.Helper()
	if gotOK, gotGuest := l.Admit(token); gotOK != ok || gotGuest != guest {
		t.Errorf("%s: Admit() = %v, %v, want %v, %v", what, gotOK, gotGuest, ok, guest)
	}
}

func TestInvitesCountTheirUses(t *testing.T) {
	l, pass, again := testLedger(t)
	_, link, err := l.Issue(2, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, l, "a link", link, true, true)
	expect(t, l, "a stranger", newToken(), false, false)
	a, b := newToken(), newToken()
	for range 2 { // the answer to the first was lost
		if err := l.Redeem(link, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Redeem(link, b); err != nil {
		t.Fatal(err)
	}
	if err := l.Redeem(link, newToken()); !errors.Is(err, ErrUsedUp) {
		t.Errorf("a third of two uses: %v", err)
	}
	expect(t, l, "a used up link", link, false, true)
	l = again()
	pass(2 * time.Hour)
	expect(t, l, "a member after a restart, the link long expired", a, true, false)
	if n := len(l.Tokens()); n != 2 {
		t.Errorf("Tokens() has %d, want the 2 members", n)
	}
}

func TestRevokingCutsOneInviteAndItsChildren(t *testing.T) {
	l, _, _ := testLedger(t)
	first, link, err := l.Issue(0, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	_, otherLink, err := l.Issue(0, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	member, other, grandchild := newToken(), newToken(), newToken()
	if err := errors.Join(l.Redeem(link, member), l.Redeem(otherLink, other)); err != nil {
		t.Fatal(err)
	}
	_, child, err := l.Child(member)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Redeem(child, grandchild); err != nil {
		t.Fatal(err)
	}
	expect(t, l, "who came by a member", grandchild, true, false)
	if _, err := l.Revoke(first.ID); err != nil {
		t.Fatal(err)
	}
	expect(t, l, "the revoked link", link, false, true)
	expect(t, l, "its member", member, false, false)
	expect(t, l, "who came by that member", grandchild, false, false)
	expect(t, l, "who came by another", other, true, false)
	if _, _, err := l.Child(member); err == nil {
		t.Error("the revoked may invite")
	}
	if _, err := l.Revoke("nonsense"); !errors.Is(err, ErrNoInvite) {
		t.Errorf("revoking nothing: %v", err)
	}
}

func TestMembersHandOnFewInvites(t *testing.T) {
	l, pass, _ := testLedger(t)
	_, link, err := l.Issue(1, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Child(link); err == nil {
		t.Error("a guest may invite")
	}
	member := newToken()
	if err := l.Redeem(link, member); err != nil {
		t.Fatal(err)
	}
	for i := range maxChildren + 1 {
		child, token, err := l.Child(member)
		if i == maxChildren {
			if !errors.Is(err, ErrEnough) {
				t.Errorf("child %d: %v, want %v", i, err, ErrEnough)
			}
			break
		}
		if err != nil || child.Uses != childUses {
			t.Fatalf("child %d: %+v, %v", i, child, err)
		}
		if err := l.Redeem(token, newToken()); err != nil {
			t.Fatal(err)
		}
	}
	pass(childLifetime)
	for _, i := range l.List() {
		if !i.Over {
			t.Errorf("%+v is not over", i)
		}
	}
}

func TestStandingInvitesAdmitByTheirOwnToken(t *testing.T) {
	l, pass, _ := testLedger(t)
	_, token, err := l.Issue(0, time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, l, "a published address", token, true, false)
	pass(time.Hour)
	expect(t, l, "an expired one", token, false, false)
}
