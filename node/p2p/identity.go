package p2p

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ID names a peer: the Ed25519 public key of its node.
type ID = [32]byte

// PeerID returns the libp2p name of id.
func PeerID(id ID) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(id[:])
	if err != nil {
		return "", fmt.Errorf("peer %x: %w", id[:4], err)
	}
	pid, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("peer %x: %w", id[:4], err)
	}
	return pid, nil
}

var errNotEd25519 = errors.New("peer id does not hold an Ed25519 key")

// MemberID returns the public key that a libp2p name holds.
func MemberID(pid peer.ID) (ID, error) {
	pub, err := pid.ExtractPublicKey()
	if err != nil {
		return ID{}, fmt.Errorf("peer id: %w", err)
	}
	if pub.Type() != pb.KeyType_Ed25519 {
		return ID{}, errNotEd25519
	}
	raw, err := pub.Raw()
	if err != nil {
		return ID{}, fmt.Errorf("peer id: %w", err)
	}
	if len(raw) != ed25519.PublicKeySize {
		return ID{}, errNotEd25519
	}
	return ID(raw), nil
}

// RaftAddress returns the address under which raft knows id: its peer id as
// text, whatever network address it has at the moment.
func RaftAddress(id ID) (raft.ServerAddress, error) {
	pid, err := PeerID(id)
	if err != nil {
		return "", err
	}
	return raft.ServerAddress(pid.String()), nil
}

// FromRaftAddress is the inverse of RaftAddress.
func FromRaftAddress(a raft.ServerAddress) (ID, error) {
	pid, err := peer.Decode(string(a))
	if err != nil {
		return ID{}, fmt.Errorf("raft address %q: %w", string(a), err)
	}
	return MemberID(pid)
}
