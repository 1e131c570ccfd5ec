"""The full names of our gRPC methods: what the permission table, the server and the client share."""

from __future__ import annotations

ENROLL = "/fltrust.v1.EnrollmentService/Enroll"
RENEW = "/fltrust.v1.EnrollmentService/Renew"
GET_BUNDLE = "/fltrust.v1.TrustService/GetBundle"
WATCH = "/fltrust.v1.TrustService/Watch"
CREATE_TOKEN = "/fltrust.v1.TokenService/CreateToken"  # noqa: S105 - the name of a method
LIST_TOKENS = "/fltrust.v1.TokenService/ListTokens"
CANCEL_TOKEN = "/fltrust.v1.TokenService/CancelToken"  # noqa: S105
LIST_PARTICIPANTS = "/fltrust.v1.ParticipantService/ListParticipants"
GET_PARTICIPANT = "/fltrust.v1.ParticipantService/GetParticipant"
REVOKE = "/fltrust.v1.RevocationService/Revoke"
HOLD = "/fltrust.v1.RevocationService/Hold"
RELEASE = "/fltrust.v1.RevocationService/Release"
OPEN_ROUND = "/fltrust.v1.RoundService/OpenRound"
SEAL_ROUND = "/fltrust.v1.RoundService/SealRound"
CLOSE_RUN = "/fltrust.v1.RoundService/CloseRun"
LIST_ROUNDS = "/fltrust.v1.RoundService/ListRounds"
GET_ROUND = "/fltrust.v1.RoundService/GetRound"
PROVE_ROUNDS = "/fltrust.v1.RoundService/ProveRounds"
CERTIFY_SIGNER = "/fltrust.v1.SigningService/CertifySigner"
COUNTERSIGN = "/fltrust.v1.SigningService/Countersign"
DESCRIBE_ROUND = "/fltrust.v1.LineageService/DescribeRound"
FIND_LINEAGE = "/fltrust.v1.LineageService/FindLineage"
BLAST_RADIUS = "/fltrust.v1.LineageService/BlastRadius"
GET_TRUST = "/fltrust.v1.LineageService/GetTrust"
AUDIT = "/fltrust.v1.LogService/Audit"
