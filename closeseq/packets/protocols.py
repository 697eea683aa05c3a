"""Protocol numbers: link types, EtherTypes, IP protocols, and the UDP ports of tunnels.

Each number stands here once, for the decoder (segments/) and for the kernel's filter programs (capture/live).
"""

from __future__ import annotations

# LINKTYPE_ values as registered by tcpdump.org.
LINKTYPE_NULL = 0  # BSD loopback
LINKTYPE_ETHERNET = 1
LINKTYPE_PPP = 9
LINKTYPE_FDDI = 10
LINKTYPE_PPP_HDLC = 50  # PPP in HDLC-like framing
LINKTYPE_PPPOE = 51
LINKTYPE_RAW = 101  # an IP header comes first
LINKTYPE_CISCO_HDLC = 104
LINKTYPE_IEEE_802_11 = 105
LINKTYPE_LOOP = 108  # OpenBSD loopback
LINKTYPE_SLL = 113  # Linux cooked capture
LINKTYPE_RADIOTAP = 127
LINKTYPE_PPI = 192
LINKTYPE_IPV4 = 228
LINKTYPE_IPV6 = 229
LINKTYPE_NFLOG = 239
LINKTYPE_SLL2 = 276  # Linux cooked capture, version 2
DLT_RAW = (12, 14)  # libpcap's numbers for LINKTYPE_RAW, on Linux and on OpenBSD; some files have them

# EtherTypes (IEEE 802 Numbers, IANA).
ETHERTYPE_LLC = 0  # stands for all numbers that are a length instead of an EtherType
LARGEST_LENGTH = 1500  # IEEE 802.3: up to here the field is the length of an LLC frame
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_BRIDGED = 0x6558  # Ethernet, bridged
ETHERTYPE_VLAN = 0x8100  # IEEE 802.1Q
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_PPP = 0x880B
ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST = 0x8847, 0x8848
ETHERTYPE_PPPOE = 0x8864
ETHERTYPE_VN_TAG = 0x8926  # Cisco's and VMware's, for the virtual ports of an adapter
ETHERTYPE_E_TAG = 0x893F  # IEEE 802.1BR, for the ports of a port extender
VLAN_TAGS = (ETHERTYPE_VLAN, 0x88A8, 0x9100, 0x9200)  # 802.1Q, 802.1ad, and QinQ before both
# What must be walked, header by header, to find the IP header: also tags that are longer than a VLAN's.
WALKED_ETHERTYPES = (
    *(ETHERTYPE_BRIDGED, ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST, ETHERTYPE_PPP, ETHERTYPE_PPPOE),
    *(ETHERTYPE_VN_TAG, ETHERTYPE_E_TAG),
)

# IP protocol numbers (IANA).
PROTOCOL_TCP, PROTOCOL_UDP = 6, 17
PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_GRE, PROTOCOL_MPLS = 4, 41, 47, 137  # within IP
IPV6_FRAGMENT = 44
IPV6_OPTIONS = 60
AUTHENTICATION = 51  # RFC 4302, in IPv4 and IPv6
# IPv6 extension headers with a length of their own (RFC 7045 4): Hop-by-Hop, Routing, Destination Options,
# Mobility, HIP, Shim6.
IPV6_EXTENSIONS = (0, 43, IPV6_OPTIONS, 135, 139, 140)
# What must be walked, header by header, to find the TCP header.
WALKED_PROTOCOLS = (
    *(PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_GRE, PROTOCOL_MPLS),
    *(IPV6_FRAGMENT, AUTHENTICATION, *IPV6_EXTENSIONS),
)
FRAGMENT_OFFSET = 0x1FFF  # RFC 791 3.1: these bits of IPv4's field of flags and fragment offset

# UDP destination ports.
PORT_VXLAN = 4789  # RFC 7348
PORT_VXLAN_LINUX = 8472  # VXLAN as Linux had it first
PORT_GENEVE = 6081  # RFC 8926
PORT_GRE = 4754  # RFC 8086
PORT_GTP_U = 2152  # 3GPP TS 29.281
TUNNEL_PORTS = (PORT_VXLAN, PORT_VXLAN_LINUX, PORT_GENEVE, PORT_GRE, PORT_GTP_U)
