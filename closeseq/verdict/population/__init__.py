"""What many connections show together: idle timeouts, pools that outlive them, ports that run out.

rules      the rules: from columns of closes to findings
defaults   idle timeouts that products have by default, each with its source
"""
