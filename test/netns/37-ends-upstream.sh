#!/bin/bash
# 37. The upstream ends, by FIN, by RST and by silence, in each state of a session (see 35).
# transports: socket stack
WORLD=s37
. "$(dirname "$0")/ends.sh"
#   STATE       SIDE     HOW     DEVICE UPSTREAM HEARD      SECONDS WHY
row connecting  upstream silence 'F'    '-|R'  'alert fin'     10  'no answer in time.*upstream cannot be reached'
row connecting  upstream fin     'F'    'F'    'notify fin'    10  'half-closed and idle'
row connecting  upstream rst     'F'    '-'    'alert fin'     8   'upstream broke off|.*upstream cannot be reached'
row open        upstream silence 'F'    'F'    'notify fin'    10  'idle'
row open        upstream fin     'F'    'F'    'notify fin'    8   'half-closed and idle'
row open        upstream rst     'F'    '-|R'  'alert fin'     6   'upstream broke off'
row full        upstream silence 'F'    'R'    'notify fin'    10  'idle'
row full        upstream fin     'F'    'F?R'  'notify fin'    10  'half-closed and idle'
row full        upstream rst     'F'    '-|R'  'alert fin'     6   'upstream broke off'
row full        upstream refuse  'F'    '-|R'  'refused alert fin' 6 'upstream broke off'
row half        upstream silence 'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row half        upstream fin     'F'    'F'    'notify fin'    6   'closed'
row half        upstream rst     'F'    'F'    'alert fin'     6   'upstream broke off'
row notified    upstream silence 'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row notified    upstream fin     'F'    'F'    'notify fin'    6   'closed'
row notified    upstream rst     'F'    'F'    'alert fin'     6   'upstream broke off'
row other-half  upstream silence 'F'    'F'    'notify fin'    8   'half-closed and idle'
row other-half  upstream fin     'F'    'F'    'notify fin'    8   'half-closed and idle'
row other-half  upstream rst     'F'    '-|R'  'notify fin'    4   'upstream broke off'
row flooded     upstream silence 'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row flooded     upstream fin     'F'    'FR?'  'notify fin'    6   'closed'
row flooded     upstream rst     'F'    'F'    'alert fin'     6   'upstream broke off'
row drain       upstream silence 'F'    'F'    'notify fin'    8   'its listener was removed'
row drain       upstream fin     'F'    'F'    'notify fin'    8   'its listener was removed'
row drain       upstream rst     'F'    '-|R'  'alert fin'     8   'upstream broke off'
# Where the network repeats every frame, the end is the same.
wire_put cam1 --repeat 100
row open        upstream rst     'F'    '-|R'  'alert fin'     6   'upstream broke off'
row flooded     upstream fin     'F'    'FR?'  'notify fin'    6   'closed'
nothing_left
