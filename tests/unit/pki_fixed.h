/* openssl req -x509 -new -key P-256.key -days 3650 -subj '/O=Fixed, Inc./CN=fixed'
 *   -addext 'subjectAltName=DNS:fixed.example.org,IP:192.0.2.1,IP:2001:db8::5'
 * The values: sha256sum of the DER and of the public key, `openssl x509 -noout -subject -nameopt RFC2253 -serial -dates`. */
#ifndef PKI_FIXED_H
#define PKI_FIXED_H

#include <stdint.h>

static const char fixed_pem[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIB2TCCAX+gAwIBAgIUeb6yXZHWuFGAAESsf1BL+cE6PiwwCgYIKoZIzj0EAwIw\n"
	"JjEUMBIGA1UECgwLRml4ZWQsIEluYy4xDjAMBgNVBAMMBWZpeGVkMB4XDTI2MTEy\n"
	"MzE5NTIxOFoXDTM2MTEyMDE5NTIxOFowJjEUMBIGA1UECgwLRml4ZWQsIEluYy4x\n"
	"DjAMBgNVBAMMBWZpeGVkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2c7zYxvx\n"
	"n3CyZk48VFryJwQolxfaUeA0iIm06GQXWUIKp/NWSvVu5Z70E/kodWiEt+RmrtvA\n"
	"cr7RvggmiTEVw6OBijCBhzAdBgNVHQ4EFgQU6AqIq59qzZrVg9j4fjclOlXmzdow\n"
	"HwYDVR0jBBgwFoAU6AqIq59qzZrVg9j4fjclOlXmzdowDwYDVR0TAQH/BAUwAwEB\n"
	"/zA0BgNVHREELTArghFmaXhlZC5leGFtcGxlLm9yZ4cEwAACAYcQIAENuAAAAAAA\n"
	"AAAAAAAABTAKBggqhkjOPQQDAgNIADBFAiBxqJDm4truVXEluMepBHO2GoLar+0p\n"
	"4Flu0xhLWw9seQIhAOO3YN5dO4/5/IP/FnztQlLFjqtd1JDmlwS2TndChDBU\n"
	"-----END CERTIFICATE-----\n";
static const char fixed_fingerprint[] = "3dbb9ac799033f330d83dac9997d98d4c88d78477c3c690b0bcfca6d1423c16d";
static const char fixed_spki[] = "f0195e58ad60bcc7436246b051e5de5310fa8c9663b3a8e4ccd8692ea9ca9303";
static const char fixed_subject[] = "CN=fixed,O=Fixed\\, Inc.";
static const char fixed_serial[] = "79BEB25D91D6B851800044AC7F504BF9C13A3E2C";
static const int64_t fixed_not_before_ms = INT64_C(1795463538000);
static const int64_t fixed_not_after_ms = INT64_C(2110823538000);
static const char *const fixed_sans[] = { "DNS:fixed.example.org", "IP:192.0.2.1", "IP:2001:db8::5" };

#endif
