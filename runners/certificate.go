// Certificates, as far as a store of authorities needs them: the subject's hash, by
// which OpenSSL names files, and the public key. They are read by hand: crypto/x509
// refuses some that programs accept.
package runners

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL's names of files
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

type certificate struct {
	der     []byte
	subject asn1.RawValue
	key     []byte // SubjectPublicKeyInfo, DER
}

var errCertificate = errors.New("no X.509 certificate")

func parseCertificate(der []byte) (*certificate, error) {
	var outer, tbs asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("%w: %w", errCertificate, err)
	}
	if _, err := asn1.Unmarshal(outer.Bytes, &tbs); err != nil {
		return nil, fmt.Errorf("%w: %w", errCertificate, err)
	}
	var fields []asn1.RawValue
	for rest := tbs.Bytes; len(rest) > 0 && len(fields) < 7; {
		var f asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &f); err != nil {
			return nil, fmt.Errorf("%w: %w", errCertificate, err)
		}
		if len(fields) == 0 && f.Class == asn1.ClassContextSpecific {
			continue // the version
		}
		fields = append(fields, f)
	}
	// serial number, algorithm, issuer, validity, subject, key
	if len(fields) < 6 || fields[4].Tag != asn1.TagSequence || fields[5].Tag != asn1.TagSequence {
		return nil, errCertificate
	}
	return &certificate{der: der, subject: fields[4], key: fields[5].FullBytes}, nil
}

// subjectHash is what `openssl x509 -hash` prints: of the subject with its strings as
// UTF-8, in lower case and with single spaces, without the header of the sequence.
func (c *certificate) subjectHash() string {
	var canon []byte
	for rest := c.subject.Bytes; len(rest) > 0; {
		var set asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &set); err != nil {
			break
		}
		var entries [][]byte
		for in := set.Bytes; len(in) > 0; {
			var pair struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			if in, err = asn1.Unmarshal(in, &pair); err != nil {
				break
			}
			if text, ok := canonicalText(pair.Value); ok {
				pair.Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
			}
			if b, err := asn1.Marshal(pair); err == nil {
				entries = append(entries, b)
			}
		}
		slices.SortFunc(entries, bytes.Compare)
		if b, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: slices.Concat(entries...)}); err == nil {
			canon = append(canon, b...)
		}
	}
	sum := sha1.Sum(canon) //nolint:gosec // see above
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4]))
}

// canonicalText makes the text that OpenSSL compares of a string; ok is false for
// values of other types, which it takes as they are.
func canonicalText(v asn1.RawValue) (text string, ok bool) {
	const visible, universal = 26, 28
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, visible:
		text = string(v.Bytes)
	case asn1.TagT61String: // read as Latin-1
		runes := make([]rune, len(v.Bytes))
		for i, b := range v.Bytes {
			runes[i] = rune(b)
		}
		text = string(runes)
	case asn1.TagBMPString:
		var units []uint16
		for b := v.Bytes; len(b) >= 2; b = b[2:] {
			units = append(units, binary.BigEndian.Uint16(b))
		}
		text = string(utf16.Decode(units))
	case universal:
		var runes []rune
		for b := v.Bytes; len(b) >= 4; b = b[4:] {
			runes = append(runes, rune(binary.BigEndian.Uint32(b)))
		}
		text = string(runes)
	default:
		return "", false
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' })
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.Join(words, " ")), true
}
